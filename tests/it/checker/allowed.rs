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
    let deaf = format!("{deaf}\n2500 w0.0 update 1 a 150 o1").replace("delete 1 a 100", "delete 1 a 150");
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
    // What was going on with the dead is over.
    assert!(late("900 w0.0 busy 1"));
    assert!(late("900 w0.0 stopped 900000"));
    assert!(late("900 w0.0 net black-hole\n29000 w0.1 started"));
    assert!(late("0 w2.0 JOINED 3\n3000 w2.0 busy 3\n4000 w2.0 gone 3"), "its consumer has dropped it");
    assert!(late("900 w2.0 net cut\n1000 w2.0 net-end\n29000 w2.0 net-end"), "it ended once");
    assert!(!late("2000 w1.0 takes 2 false"), "there is nobody to take it");
}

/// `w1.0` stands still for `pause` ms, again and again, and runs for as long in between.
fn pauses(pause: u64) -> String {
    let from = (1_100..29_000).step_by(2 * pause as usize);
    from.map(|from| format!("{} w1.0 stalled {from}000\n", from + pause)).collect()
}

// On a busy machine somebody always stands still: that costs the time, and no more.
#[test]
fn short_pauses_hold_up_a_takeover_for_as_long_as_they_are() {
    let lines = |stalls: &str, add: u64| {
        format!(
            "{TWO}11 m0.0 ask o1 add a o1
            12 m0.0 done o1 a new
            1000 w0.0 killed
            {stalls}
            {add} w1.0 add 2 a 200 o1
            90000 soak fault nothing"
        )
    };
    // A bound of 3 s, of which the half passes as it should.
    clean(&lines(&pauses(200), 6_800));
    assert_eq!(only(&history(&lines(&pauses(200), 7_500))).0, Kind::LateTakeover);
    // Everybody stands still at once.
    let all = format!("{}{}", pauses(200), pauses(200).replace("w1.0", "w2.0"));
    let two = lines(&format!("0 w2.0 JOINED 3\n{all}"), 7_500);
    assert_eq!(only(&history(&two)).0, Kind::LateTakeover);
    // It may have lost its lock by each of these, and what it was given goes on to somebody else.
    clean(&lines(&pauses(600), 29_000));
}

#[test]
fn short_pauses_hold_up_a_delete_and_an_update_for_as_long_as_they_are() {
    let lines = |call: &str, seen: &str| {
        format!(
            "0 w1.0 JOINED 2
            10 w1.0 add 2 a 100 o1
            1000 m0.0 ask o2 {call}
            1001 m0.0 done o2 a pushed
            {}{seen}
            90000 soak fault nothing",
            pauses(100)
        )
    };
    for (call, kind) in [("update a o2", Kind::StalePayload), ("delete a -", Kind::DeleteNotDelivered)] {
        let seen = |at: u64| match kind {
            Kind::StalePayload => format!("{at} w1.0 update 2 a 100 o2"),
            _ => format!("{at} w1.0 told 2 a 100\n{at} w1.0 delete 2 a 100 Removed\n{at} w1.0 drop 2 a 100"),
        };
        clean(&lines(call, &seen(3_900)));
        assert_eq!(only(&history(&lines(call, &seen(4_500)))).0, kind);
    }
}

// The soak blocks the thread of the consumer: it says so, since nothing else of that process may notice.
#[test]
fn a_consumer_that_does_not_look_gets_an_update_when_it_looks_again() {
    let lines = |busy: &str, seen: u64| {
        format!(
            "{TWO}1000 m0.0 ask o2 update a o2
            1001 m0.0 done o2 a pushed
            {busy}
            {seen} w0.0 update 1 a 100 o2
            90000 soak fault nothing"
        )
    };
    clean(&lines("990 w0.0 busy 1\n3490 w0.0 free 1", 3_491));
    assert_eq!(only(&history(&lines("", 3_491))).0, Kind::StalePayload);
    assert_eq!(only(&history(&lines("990 w0.0 busy 1\n1490 w0.0 free 1", 3_491))).0, Kind::StalePayload);
    // Handlers are told whether or not it looks.
    let deleted = lines("990 w0.0 busy 1\n3490 w0.0 free 1", 3_491).replace("update a o2", "delete a -");
    let deleted = deleted.replace("3491 w0.0 update 1 a 100 o2", "3491 w0.0 told 1 a 100");
    assert_eq!(only(&history(&deleted)).0, Kind::DeleteNotDelivered);
}

// It did not look, and its handlers were told when the lock was over: it was over then, and not before.
#[test]
fn a_consumer_that_does_not_look_is_no_excuse_for_what_its_handlers_were_told() {
    let lines = |add: u64| {
        format!(
            "{TWO}500 w0.0 busy 1
            3000 w0.0 told 1 a 100
            {add} w1.0 add 2 a 200 o1
            3500 w0.0 free 1
            3501 w0.0 delete 1 a 100 LockExpired
            3501 w0.0 close 1 LockExpired
            5000 w0.0 drop 1 a 100"
        )
    };
    clean(&lines(3_301));
    assert_eq!(only(&history(&lines(3_200))).0, Kind::TwoHoldersWithinMargin);
    assert_eq!(only(&history(&lines(2_000))).0, Kind::TwoHolders);
}

// A worker that was dropped keeps its lock until its handlers are done, or the release timeout is over.
#[test]
fn a_handler_of_a_worker_that_was_dropped_has_its_time() {
    let lines = |add: u64, trouble: &str| {
        format!(
            "{TWO}{trouble}
            1000 w0.0 gone 1
            1001 w0.0 told 1 a 100
            {add} w1.0 add 2 a 200 o1
            6000 w0.0 drop 1 a 100"
        )
    };
    clean(&lines(3_002, ""));
    assert_eq!(only(&history(&lines(1_500, ""))).0, Kind::TwoHoldersWithinMargin);
    // Its lock may be lost meanwhile, by what may cost it, and not long before that.
    clean(&lines(1_500, "1100 w0.0 net cut\n3000 w0.0 net-end"));
    assert_eq!(
        only(&history(&lines(1_350, "1100 w0.0 net cut\n3000 w0.0 net-end"))).0,
        Kind::TwoHoldersWithinMargin
    );
    assert_eq!(
        only(&history(&lines(1_500, "1100 w0.0 net cut\n1300 w0.0 net-end"))).0,
        Kind::TwoHoldersWithinMargin
    );
}

// Long after its trouble a worker would have said that its lock is over.
#[test]
fn trouble_of_long_ago_excuses_nobody_who_is_killed() {
    let lines = |trouble: &str| {
        format!(
            "{TWO}{trouble}
            19000 w0.0 told 1 a 100
            19001 w0.0 delete 1 a 100 Rebalanced
            19500 w1.0 add 2 a 200 o1
            20000 w0.0 killed"
        )
    };
    clean(&lines("17000 w0.0 net cut\n18000 w0.0 net-end"));
    let ago = lines("1000 w0.0 net cut\n2000 w0.0 net-end");
    assert_eq!(only(&history(&ago)).0, Kind::TwoHoldersWithinMargin);
    // Unless it did not look from then on.
    clean(&lines("1000 w0.0 net cut\n2000 w0.0 net-end\n3000 w0.0 busy 1"));
    // Whom nobody told anything of its lock has it.
    let untold = lines("17000 w0.0 net cut\n18000 w0.0 net-end").replace("19000 w0.0 told 1 a 100", "");
    let untold = untold.replace("19001 w0.0 delete 1 a 100 Rebalanced", "");
    assert_eq!(only(&history(&untold)).0, Kind::TwoHolders);
}
