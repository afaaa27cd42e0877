//! What the promises allow is no violation, for exactly as long as they do.

use super::{Kind, clean, history, only};

const TWO: &str = "0 w0.0 JOINED 1
    0 w1.0 JOINED 2
    10 w0.0 add 1 a 100 o1
    ";

#[test]
fn a_killed_process_holds_nothing() {
    clean(&format!("{TWO}1000 w0.0 killed\n2500 w1.0 add 2 a 200 o1"));
}

// It had not fenced when it was stopped, so its lock was good for the margin at least.
#[test]
fn a_stopped_process_may_overlap_from_its_margin_on_until_it_wakes() {
    let stopped = format!("{TWO}1000 w0.0 stopped 1000000\n");
    let woken = "3000 w0.0 continued 3000000
        3005 w0.0 told 1 a 100
        3006 w0.0 delete 1 a 100 LockExpired
        3006 w0.0 close 1 LockExpired
        3007 w0.0 drop 1 a 100";
    clean(&format!("{stopped}1301 w1.0 add 2 a 200 o1\n{woken}"));
    let early = history(&format!("{stopped}1250 w1.0 add 2 a 200 o1\n{woken}"));
    assert_eq!(only(&early).0, Kind::TwoHolders);
    // The epoch has to tell, all the same.
    let older = history(&format!("{stopped}1301 w1.0 add 2 a 99 o1\n{woken}"));
    assert_eq!(only(&older).0, Kind::EpochBack);
    // And it has to give up when it wakes.
    let late =
        woken.replace("3005 w0.0 told", "3905 w0.0 told").replace("3006", "3906").replace("3007", "3907");
    let late = history(&format!("{stopped}1301 w1.0 add 2 a 200 o1\n{late}"));
    assert_eq!(only(&late).0, Kind::TwoHolders);
}

#[test]
fn a_process_that_says_that_it_did_not_run_is_as_one_that_was_stopped() {
    let lines = format!(
        "{TWO}1302 w1.0 add 2 a 200 o1
        3000 w0.0 stalled 1000000
        3005 w0.0 told 1 a 100
        3006 w0.0 delete 1 a 100 LockExpired
        3006 w0.0 drop 1 a 100"
    );
    clean(&lines);
    assert_eq!(only(&history(&lines.replace("3000 w0.0 stalled 1000000", ""))).0, Kind::TwoHolders);
}

// It may stand still again before it has told anybody; but what it runs in between is time in which it could have.
#[test]
fn a_process_that_stands_still_now_and_then_has_told_within_what_it_ran() {
    let lines = |pause: u64| {
        let stalls: String = (0..10)
            .map(|number| 1_000 + number * (60 + pause))
            .map(|from| format!("{} w0.0 stalled {}000\n", from + 60, from))
            .collect();
        let told = 1_000 + 10 * (60 + pause);
        format!(
            "{TWO}{stalls}1302 w1.0 add 2 a 200 o1
            {told} w0.0 told 1 a 100
            {told} w0.0 delete 1 a 100 LockExpired
            {told} w0.0 drop 1 a 100"
        )
    };
    clean(&lines(20));
    assert_eq!(only(&history(&lines(60))).0, Kind::TwoHolders);
}

#[test]
fn a_process_that_is_killed_while_it_is_stopped_may_overlap_too() {
    clean(&format!("{TWO}1000 w0.0 stopped 1000000\n1301 w1.0 add 2 a 200 o1\n4000 w0.0 killed"));
}

#[test]
fn a_handler_may_be_passed_over_from_its_margin_on_when_the_lock_is_lost() {
    let lines = |add: u64| {
        format!(
            "{TWO}1000 w0.0 told 1 a 100
            1000 w0.0 delete 1 a 100 LockExpired
            1000 w0.0 close 1 LockExpired
            {add} w1.0 add 2 a 200 o1
            5000 w0.0 drop 1 a 100"
        )
    };
    clean(&lines(1_300));
    assert_eq!(only(&history(&lines(1_260))).0, Kind::TwoHoldersWithinMargin);
}

// Told to let go for another reason, and then the lock is lost as well.
#[test]
fn a_handler_may_be_passed_over_when_the_lock_is_lost_after_another_delete() {
    clean(&format!(
        "{TWO}1000 w0.0 told 1 a 100
        1000 w0.0 delete 1 a 100 Rebalanced
        1200 w0.0 close 1 LockExpired
        1500 w1.0 add 2 a 200 o1
        2500 w0.0 drop 1 a 100"
    ));
}

#[test]
fn a_consumer_that_is_gone_need_not_have_seen_the_end_of_the_lock() {
    let lines = format!(
        "{TWO}800 w0.0 told 1 a 100
        800 w0.0 delete 1 a 100 Rebalanced
        1000 w0.0 stopped 1000000
        2000 w1.0 add 2 a 200 o1
        2600 w0.0 continued 2600000
        2700 w0.0 drop 1 a 100
        3000 w0.0 gone 1"
    );
    clean(&lines);
    let goes_on = lines.replace("2600", "2400").replace("3000 w0.0 gone 1", "2650 w0.0 add 1 b 150 o2");
    assert_eq!(only(&history(&goes_on)).0, Kind::TwoHoldersWithinMargin);
}

#[test]
fn a_lenient_worker_that_is_cut_off_may_overlap_until_it_can_hear() {
    let lenient = TWO.replace("JOINED 1", "joined 1 1500000 300000 2000000 0 true");
    let lines = |add: u64, told: u64| {
        format!(
            "{lenient}1000 w0.0 net black-hole
            {add} w1.0 add 2 a 200 o1
            4000 w0.0 net-end
            {told} w0.0 told 1 a 100
            {told} w0.0 delete 1 a 100 LockExpired
            {told} w0.0 close 1 LockExpired
            {told} w0.0 drop 1 a 100"
        )
    };
    clean(&lines(1_750, 5_000));
    assert_eq!(only(&history(&lines(1_740, 5_000))).0, Kind::TwoHolders);
    assert_eq!(only(&history(&lines(1_750, 8_000))).0, Kind::TwoHolders);
    // A strict one may not, whatever happens to the network.
    let strict = lines(1_750, 5_000).replace("true", "false");
    assert_eq!(only(&history(&strict)).0, Kind::TwoHolders);
}

#[test]
fn jobs_of_a_cluster_that_was_wiped_do_not_count() {
    let lines = format!(
        "{TWO}1000 server away killed
        1500 server back false
        2000 w1.1 JOINED 1
        2100 w1.1 add 1 a 200 o1
        4000 w0.0 told 1 a 100
        4000 w0.0 delete 1 a 100 ClusterReset
        4000 w0.0 drop 1 a 100"
    );
    clean(&lines);
    assert_eq!(only(&history(&lines.replace("back false", "back true"))).0, Kind::TwoHolders);
}

// The epoch decides, and both have to hear of it.
#[test]
fn a_server_that_lost_the_last_writes_may_give_a_job_to_another() {
    let lines = format!(
        "{TWO}1000 server away killed
        1500 server back-older 900000
        2000 w1.0 add 2 a 200 o1
        3100 w0.0 told 1 a 100
        3100 w0.0 delete 1 a 100 Removed
        4000 w0.0 drop 1 a 100"
    );
    clean(&lines);
    assert_eq!(only(&history(&lines.replace("add 2 a 200", "add 2 a 99"))).0, Kind::EpochBack);
    assert_eq!(only(&history(&lines.replace("back-older 900000", "back true"))).0, Kind::TwoHolders);
    let deaf = lines.replace("3100", "9100").replace("4000", "9200");
    assert_eq!(only(&history(&deaf)).0, Kind::TwoHolders);
}

#[test]
fn what_nobody_can_know_is_not_asked_for() {
    let end = "9000 soak heal\n9010 m0.0 cluster 0 0 0\n9020 soak final";
    let added = "0 w0.0 JOINED 1\n10 m0.0 ask o1 add a o1\n12 m0.0 done o1 a new\n";
    // An add that may have come.
    clean(&format!("0 w0.0 JOINED 1\n10 m0.0 ask o1 add a o1\n12 m0.0 unclear o1 Timeout\n{end}"));
    clean(&format!("0 w0.0 JOINED 1\n10 m0.0 ask o1 add a o1\n12 m0.0 killed\n{end}"));
    // A delete that may have come, or came at the same time as another add.
    clean(&format!("{added}20 m0.0 ask o2 delete a -\n22 m0.0 unclear o2 Timeout\n{end}"));
    clean(&format!("{added}11 m1.0 ask o2 delete a -\n13 m1.0 done o2 a unknown\n{end}"));
    clean(&format!("{added}20 w0.0 ask x1 delete-own a -\n{end}"));
    // A wipe.
    clean(&format!("{added}20 server away killed\n30 server back false\n{end}"));
    // The last writes were lost; what was written before them was not.
    clean(&format!("{added}20 server away killed\n30 server back-older 11000\n{end}"));
    let before = format!("{added}20 server away killed\n30 server back-older 13000\n{end}");
    assert!(super::check(&history(&before)).iter().any(|violation| violation.kind == Kind::JobLost));
    // A refusal is no maybe.
    clean(&format!("0 w0.0 JOINED 1\n10 m0.0 ask o1 add a o1\n12 m0.0 refused o1 OutOfMemory\n{end}"));
    let refused = format!("{added}20 m0.0 ask o2 delete a -\n22 m0.0 refused o2 Connection\n{end}");
    assert!(super::check(&history(&refused)).iter().any(|violation| violation.kind == Kind::JobLost));
}

#[test]
fn disturbances_set_the_clock_of_a_takeover_back_and_no_further() {
    let lines = |disturbance: &str| {
        history(&format!(
            "{TWO}11 m0.0 ask o1 add a o1
            12 m0.0 done o1 a new
            1000 w0.0 killed
            {disturbance}
            30000 w1.0 add 2 a 200 o1
            90000 soak fault nothing"
        ))
    };
    let late = |disturbance: &str| !super::check(&lines(disturbance)).is_empty();
    assert!(late("2000 server fault notifications-off"), "hints are hints");
    assert!(late("2000 m0.0 killed"), "no master is needed");
    assert!(late("2000 server away paused\n3000 server back true"));
    assert!(!late("2000 server away paused\n24000 server back true"));
    assert!(!late("2000 w1.0 busy 2\n28000 w1.0 free 2"), "it does not look");
    assert!(!late("2000 w1.0 takes 2 false"), "there is nobody to take it");
}
