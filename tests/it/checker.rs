//! The judge of histories that `tests/soak` has, judged itself: it finds each broken promise in a small history, with
//! the lines that show it and no others, and nothing in a history that is clean.

mod allowed;
#[path = "../soak/checker/mod.rs"]
mod judge;
mod random;

use judge::{Entry, Kind, Violation, What, check};

/// A history from lines with times in milliseconds. `JOINED n` stands for the join of worker n with a lock of 1500 ms,
/// a margin of 300 ms and a release timeout of 2000 ms.
fn history(lines: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (ms, rest) = line.split_once(' ').expect("a time");
        let us = ms.parse::<u64>().expect("ms") * 1_000;
        let (who, what) = rest.split_once(' ').expect("a process");
        let what = match what.strip_prefix("JOINED ") {
            Some(worker) => format!("joined {worker} 1500000 300000 2000000 0 false"),
            None => what.to_owned(),
        };
        Entry::parse(&format!("{us} {who} {what}")).unwrap_or_else(|| panic!("no line: {line}"))
    };
    let mut entries: Vec<Entry> =
        lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// The only violation, and the lines of its excerpt, without their times.
#[track_caller]
fn only(entries: &[Entry]) -> (Kind, Vec<String>) {
    let found = check(entries);
    assert_eq!(found.len(), 1, "{}", shown(&found, entries));
    let line = |line: &usize| format!("{} {}", entries[*line].who, entries[*line].what);
    (found[0].kind, found[0].lines.iter().map(line).collect())
}

#[track_caller]
fn clean(lines: &str) {
    let entries = history(lines);
    let found = check(&entries);
    assert!(found.is_empty(), "{}", shown(&found, &entries));
}

fn shown(found: &[Violation], entries: &[Entry]) -> String {
    found.iter().map(|violation| violation.excerpt(entries)).collect()
}

#[test]
fn a_line_is_read_as_it_was_written() {
    let lines = "1 w0.0 joined 1 1500000 300000 2000000 0 true
        2 w0.0 error 1 ReleaseTimeout a
        3 w0.0 error 1 Timeout -
        4 m0.0 ask o1 add a,b o1
        5 m0.0 ask o2 add - o2
        6 m0.0 done o1 a,b new,existing
        7 soak heal
        8 server back true";
    let entries = history(lines);
    assert_eq!(entries.len(), 8);
    for entry in &entries {
        assert_eq!(Entry::parse(&entry.to_string()).as_ref(), Some(entry));
    }
    assert!(matches!(&entries[4].what, What::Ask { jobs, .. } if jobs.is_empty()));
    assert_eq!(Entry::parse("1 w0.0 add 1 a"), None);
    assert_eq!(Entry::parse("noise"), None);
}

#[test]
fn a_history_in_which_all_is_well_is_clean() {
    clean(
        "0 w0.0 JOINED 1
        0 w1.0 JOINED 2
        10 m0.0 ask o1 add a o1
        11 w0.0 add 1 a 100 o1
        12 m0.0 done o1 a new
        500 m0.0 ask o2 update a o2
        501 m0.0 done o2 a pushed
        502 w0.0 update 1 a 100 o2
        1000 w0.0 told 1 a 100
        1001 w0.0 delete 1 a 100 Rebalanced
        1002 w0.0 drop 1 a 100
        1003 w1.0 add 2 a 200 o2
        2000 w0.0 close 1 Terminated
        2001 w0.0 end 1
        9000 soak heal
        9010 m0.0 has a assigned:2:200
        9010 m0.0 cluster 1 0 0
        9020 soak final",
    );
}

#[test]
fn two_holders_are_found_with_both_adds_and_nothing_else() {
    let entries = history(
        "0 w0.0 JOINED 1
        0 w1.0 JOINED 2
        10 w0.0 add 1 a 100 o1
        20 w1.0 add 2 b 110 o1
        500 w1.0 add 2 a 200 o1
        600 w0.0 told 1 b 999
        700 w0.0 add 1 c 210 o1",
    );
    assert_eq!(
        only(&entries),
        (Kind::TwoHolders, vec!["w0.0 add 1 a 100 o1".into(), "w1.0 add 2 a 200 o1".into()])
    );
}

// A handler that was told has time until its margin is over; nobody may begin before.
#[test]
fn two_holders_are_found_within_the_margin_of_the_first() {
    let entries = history(
        "0 w0.0 JOINED 1
        0 w1.0 JOINED 2
        10 w0.0 add 1 a 100 o1
        1000 w0.0 told 1 a 100
        1001 w0.0 delete 1 a 100 LockExpired
        1001 w0.0 close 1 LockExpired
        1100 w1.0 add 2 a 200 o1
        1150 w0.0 drop 1 a 100",
    );
    let (kind, lines) = only(&entries);
    assert_eq!(kind, Kind::TwoHoldersWithinMargin);
    let expected = [
        "w0.0 add 1 a 100 o1",
        "w0.0 told 1 a 100",
        "w0.0 delete 1 a 100 LockExpired",
        "w1.0 add 2 a 200 o1",
        "w0.0 drop 1 a 100",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn one_worker_that_has_a_job_twice_is_two_holders() {
    let entries = history(
        "0 w0.0 JOINED 1
        10 w0.0 add 1 a 100 o1
        500 w0.0 told 1 a 100
        500 w0.0 delete 1 a 100 Removed
        600 w0.0 add 1 a 200 o1
        700 w0.0 drop 1 a 100",
    );
    assert_eq!(only(&entries).0, Kind::TwoHoldersWithinMargin);
}

#[test]
fn a_later_holder_without_a_larger_epoch_is_found() {
    let entries = history(
        "0 w0.0 JOINED 1
        0 w1.0 JOINED 2
        10 w0.0 add 1 a 100 o1
        20 w0.0 update 1 a 150 o1
        500 w0.0 told 1 a 100
        500 w0.0 delete 1 a 150 Rebalanced
        501 w0.0 drop 1 a 100
        600 w1.0 add 2 a 150 o1",
    );
    let expected = vec!["w0.0 delete 1 a 150 Rebalanced".into(), "w1.0 add 2 a 150 o1".into()];
    assert_eq!(only(&entries), (Kind::EpochBack, expected));
}

#[test]
fn an_epoch_that_falls_within_an_assignment_is_found() {
    let entries = history("0 w0.0 JOINED 1\n10 w0.0 add 1 a 100 o1\n20 w0.0 update 1 a 90 o2");
    let expected = vec!["w0.0 add 1 a 100 o1".into(), "w0.0 update 1 a 90 o2".into()];
    assert_eq!(only(&entries), (Kind::EpochBack, expected));
}

#[test]
fn events_out_of_turn_are_found() {
    let begin = "0 w0.0 JOINED 1\n10 w0.0 add 1 a 100 o1\n20 w0.0 told 1 a 100\n20 w0.0 delete 1 a 100 Removed\n20 w0.0 drop 1 a 100\n";
    for (end, excerpt) in [
        ("30 w0.0 delete 1 a 100 Removed", vec!["w0.0 delete 1 a 100 Removed"]),
        ("30 w0.0 update 1 a 100 o2", vec!["w0.0 update 1 a 100 o2"]),
        ("30 w0.0 end 1", vec!["w0.0 end 1"]),
        (
            "30 w0.0 add 1 b 110 o2\n40 w0.0 close 1 Terminated",
            vec!["w0.0 add 1 b 110 o2", "w0.0 close 1 Terminated"],
        ),
        ("30 w0.0 close 1 Terminated\n40 w0.0 close 1 Terminated", vec!["w0.0 close 1 Terminated"; 2]),
        (
            "30 w0.0 close 1 Terminated\n40 w0.0 error 1 Timeout -",
            vec!["w0.0 close 1 Terminated", "w0.0 error 1 Timeout -"],
        ),
        (
            "30 w0.0 close 1 Terminated\n40 w0.0 end 1\n50 w0.0 close 1 Terminated",
            vec!["w0.0 end 1", "w0.0 close 1 Terminated"],
        ),
    ] {
        let entries = history(&format!("{begin}{end}"));
        assert_eq!(
            only(&entries),
            (Kind::OutOfTurn, excerpt.into_iter().map(str::to_owned).collect()),
            "{end}"
        );
    }
}

#[test]
fn a_second_add_in_a_row_is_found() {
    let entries = history("0 w0.0 JOINED 1\n10 w0.0 add 1 a 100 o1\n20 w0.0 add 1 a 110 o1");
    let kinds: Vec<Kind> = check(&entries).iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::OutOfTurn, Kind::TwoHolders]);
}

#[test]
fn a_worker_that_goes_on_after_its_lock_was_over_is_found() {
    let entries = history(
        "0 w0.0 JOINED 1
        10 w0.0 add 1 a 100 o1
        1000 w0.0 stopped 1000000
        3000 w0.0 continued 3000000
        3001 w0.0 add 1 b 110 o2
        3002 w0.0 told 1 a 100
        3002 w0.0 delete 1 a 100 LockExpired",
    );
    let expected =
        vec!["w0.0 stopped 1000000".into(), "w0.0 continued 3000000".into(), "w0.0 add 1 b 110 o2".into()];
    assert_eq!(only(&entries), (Kind::SpokeAfterLock, expected));

    let entries = history(
        "0 w0.0 JOINED 1
        10 w0.0 add 1 a 100 o1
        20 w0.0 told 1 a 100
        20 w0.0 delete 1 a 100 LockExpired
        20 w0.0 drop 1 a 100
        30 w0.0 add 1 b 110 o2",
    );
    assert_eq!(only(&entries).0, Kind::SpokeAfterLock);
}

const ADDED: &str = "0 w0.0 JOINED 1
    0 w1.0 JOINED 2
    10 m0.0 ask o1 add a o1
    11 w0.0 add 1 a 100 o1
    12 m0.0 done o1 a new
    ";

#[test]
fn a_takeover_that_comes_too_late_is_found_with_the_death_and_the_add() {
    let entries = history(&format!(
        "{ADDED}1000 w0.0 killed
        9000 w1.0 add 2 a 200 o1
        20000 soak fault nothing"
    ));
    let expected = [
        "m0.0 ask o1 add a o1",
        "w0.0 add 1 a 100 o1",
        "m0.0 done o1 a new",
        "w0.0 killed",
        "w1.0 add 2 a 200 o1",
    ];
    assert_eq!(only(&entries), (Kind::LateTakeover, expected.map(str::to_owned).to_vec()));
}

#[test]
fn a_job_that_nobody_ever_gets_is_found() {
    let entries = history(
        "0 w0.0 JOINED 1
        10 m0.0 ask o1 add a o1
        12 m0.0 done o1 a new
        20000 soak fault nothing",
    );
    assert_eq!(
        only(&entries),
        (Kind::LateTakeover, vec!["m0.0 ask o1 add a o1".into(), "m0.0 done o1 a new".into()])
    );
}

#[test]
fn a_delete_that_is_never_delivered_is_found() {
    let entries = history(&format!(
        "{ADDED}1000 m0.0 ask o2 delete a -
        1001 m0.0 done o2 a releasing
        20000 soak fault nothing"
    ));
    let expected = ["w0.0 add 1 a 100 o1", "m0.0 ask o2 delete a -", "m0.0 done o2 a releasing"];
    assert_eq!(only(&entries), (Kind::DeleteNotDelivered, expected.map(str::to_owned).to_vec()));
}

#[test]
fn an_update_that_is_never_delivered_is_found() {
    let lines = format!(
        "{ADDED}1000 m0.0 ask o2 update a o2
        1001 m0.0 done o2 a pushed
        2000 w0.0 update 1 a 100 o2
        20000 soak fault nothing"
    );
    clean(&lines);
    let expected = ["w0.0 add 1 a 100 o1", "m0.0 ask o2 update a o2", "m0.0 done o2 a pushed"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        only(&history(&lines.replace("2000 w0.0 update 1 a 100 o2", ""))),
        (Kind::StalePayload, expected)
    );
    // It may have been overtaken by another one.
    let two =
        lines.replace("2000 w0.0", "1001 m1.0 ask o3 update a o3\n1002 m1.0 done o3 a pushed\n2000 w0.0");
    clean(&two);
    // But not by the one before it.
    let kinds = |lines: &str| check(&history(lines)).iter().map(|found| found.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&two.replace("1 a 100 o2", "1 a 100 o1")), [Kind::StalePayload; 2]);
    // Whether it is the same job is not sure.
    clean(
        &two.replace("1 a 100 o2", "1 a 100 o1")
            .replace("o3 update a o3", "o3 delete a -")
            .replace("pushed\n2000", "gone\n2000 w0.0 told 1 a 100\n2000"),
    );
}

#[test]
fn a_job_that_is_gone_and_comes_again_is_found() {
    let lines = "0 w0.0 JOINED 1
        10 m0.0 ask o1 add a o1
        1010 m0.0 unclear o1 Timeout
        1100 m1.0 ask o2 delete a -
        1101 m1.0 done o2 a unknown
        2000 w0.0 add 1 a 100 o1
        20000 soak fault nothing";
    let expected = ["m1.0 ask o2 delete a -", "m1.0 done o2 a unknown", "w0.0 add 1 a 100 o1"];
    assert_eq!(only(&history(lines)), (Kind::Revived, expected.map(str::to_owned).to_vec()));
    // Its frame may still be on the way to somebody who is told to let go.
    clean(&lines.replace("unknown", "releasing"));
    clean(&lines.replace("1010 m0.0 unclear", "1105 m0.0 unclear"));
}

#[test]
fn a_deletion_that_is_said_to_be_over_while_the_job_is_held_is_found() {
    let entries = history(&format!(
        "{ADDED}1000 m0.0 ask o2 wait a -
        1001 w0.0 told 1 a 100
        1001 w0.0 delete 1 a 100 Removed
        1002 m0.0 done o2 a releasing
        1500 w0.0 drop 1 a 100"
    ));
    let expected = [
        "w0.0 add 1 a 100 o1",
        "m0.0 ask o2 wait a -",
        "w0.0 told 1 a 100",
        "w0.0 delete 1 a 100 Removed",
        "m0.0 done o2 a releasing",
        "w0.0 drop 1 a 100",
    ];
    assert_eq!(only(&entries), (Kind::HeldAfterWait, expected.map(str::to_owned).to_vec()));
}

#[test]
fn an_overlap_after_the_release_timeout_that_the_stream_does_not_tell_is_found() {
    let lines = "0 w0.0 JOINED 1
        0 w1.0 JOINED 2
        10 w0.0 add 1 a 100 o1
        1000 w0.0 told 1 a 100
        1000 w0.0 delete 1 a 100 Rebalanced
        3001 w1.0 add 2 a 200 o1
        3002 w0.0 error 1 ReleaseTimeout a
        4000 w0.0 drop 1 a 100
        9000 w0.0 close 1 Terminated
        9001 w0.0 end 1";
    clean(lines);
    // A consumer that was slow has the error after the Delete, and after it has dropped the job.
    clean(&lines.replace("3002 w0.0 error", "4001 w0.0 error"));
    let entries = history(&lines.replace("3002 w0.0 error 1 ReleaseTimeout a", ""));
    assert_eq!(only(&entries).0, Kind::OverlapNotSaid);
    // It belongs to the hold that was out for so long, and not to one before that was so almost.
    let before = "100 w0.0 add 1 a 50 o1
        200 w0.0 told 1 a 50
        200 w0.0 delete 1 a 50 Removed
        2180 w0.0 drop 1 a 50";
    let after = lines.replace("10 w0.0 add", "2500 w0.0 add").replace("1000 w0.0", "2600 w0.0");
    let after = after.replace("3001", "4601").replace("3002", "4602").replace("4000", "5000");
    clean(&format!("{before}\n{after}"));
    // It stood still, and so long that its lock was lost before it could say anything: then that is why.
    let still = lines.replace("3002 w0.0 error 1 ReleaseTimeout a", "1100 w0.0 stopped 1100000");
    let still = still.replace("4000 w0.0 drop", "8000 w0.0 continued 8000000\n8500 w0.0 drop");
    clean(
        &still
            .replace("9000 w0.0 close 1 Terminated", "8010 w0.0 close 1 LockExpired")
            .replace("9001 w0.0", "8011 w0.0"),
    );
    assert_eq!(only(&history(&still)).0, Kind::OverlapNotSaid);
    // It was held up when it was to give the job up, and heard of that later than the release timeout began. Not by half of it.
    clean(&lines.replace("3002 w0.0 error", "2910 w0.0 error"));
    let other = history(&lines.replace("3002 w0.0 error", "1900 w0.0 error"));
    assert_eq!(only(&other).0, Kind::OverlapNotSaid);
    // Other errors are left out where too many wait; of these, none is.
    let other = history(&lines.replace("ReleaseTimeout a", "Lagged -"));
    assert_eq!(only(&other).0, Kind::OverlapNotSaid);
}

#[test]
fn who_still_holds_a_job_of_a_cluster_that_is_gone_is_found() {
    let lines = "0 w0.0 JOINED 1
        10 w0.0 add 1 a 100 o1
        1000 server away killed
        1500 server back false
        20000 soak fault nothing";
    let expected = ["w0.0 add 1 a 100 o1", "server away killed", "server back false"];
    assert_eq!(only(&history(lines)), (Kind::HeldAfterWipe, expected.map(str::to_owned).to_vec()));
    // With its data it is the same cluster.
    clean(&lines.replace("back false", "back true\n2500 w0.0 update 1 a 200 o1"));
    // It stands still from before the wipe until long after.
    let still = format!(
        "{lines}
        900 w0.0 stopped 900000
        15000 w0.0 continued 15000000
        15001 w0.0 told 1 a 100
        15001 w0.0 delete 1 a 100 LockExpired
        15002 w0.0 drop 1 a 100"
    );
    clean(&still);
    assert_eq!(only(&history(&still.replace("15000", "1600"))).0, Kind::HeldAfterWipe);
}

#[test]
fn an_assignment_that_goes_on_with_another_server_process_and_its_old_epoch_is_found() {
    for back in ["back true", "back-older 900000"] {
        let lines = format!(
            "0 w0.0 JOINED 1
            10 w0.0 add 1 a 100 o1
            1000 server away killed
            1500 server {back}
            20000 soak fault nothing"
        );
        let expected = ["w0.0 add 1 a 100 o1".into(), "server away killed".into(), format!("server {back}")];
        assert_eq!(only(&history(&lines)), (Kind::EpochNotLifted, expected.to_vec()));
        clean(&format!("{lines}\n2500 w0.0 update 1 a 200 o1"));
        // It is the same one.
        clean(&lines.replace("killed", "paused").replace("back-older 900000", "back true"));
        // It ends by then, or its consumer does not look.
        clean(&format!("{lines}\n2500 w0.0 told 1 a 100\n2500 w0.0 drop 1 a 100"));
        clean(&format!("{lines}\n2000 w0.0 busy 1\n8000 w0.0 free 1\n8001 w0.0 update 1 a 200 o1"));
        let late = format!("{lines}\n8001 w0.0 update 1 a 200 o1");
        assert_eq!(only(&history(&late)).0, Kind::EpochNotLifted);
    }
    // In the end there is no time left for it.
    let end = format!(
        "{ADDED}8000 server away killed\n8500 server back true\n{}",
        HEALED.replace("9010", "9010 m0.0 has a assigned:1:100\n9010")
    );
    assert_eq!(only(&history(&end)).0, Kind::EpochNotLifted);
    assert_eq!(judge::unsettled(&history(&end))[0].kind, Kind::EpochNotLifted);
    clean(&format!("{end}\n8900 w0.0 update 1 a 200 o1"));
}

const HEALED: &str = "9000 soak heal\n9010 m0.0 cluster 0 0 0\n9020 soak final";

#[test]
fn what_is_not_as_it_has_to_be_in_the_end_is_found() {
    // The cluster has forgotten it.
    let entries = history(&format!("{ADDED}{HEALED}"));
    assert_eq!(only(&entries).0, Kind::JobLost);
    // The same is asked while it heals.
    assert_eq!(judge::unsettled(&entries)[0].kind, Kind::JobLost);
    let has = HEALED.replace("9010", "9010 m0.0 has a assigned:1:100\n9010");
    clean(&format!("{ADDED}{has}"));
    // Its holder has let go.
    let entries = history(&format!(
        "{ADDED}8500 w0.0 told 1 a 100\n8500 w0.0 delete 1 a 100 Rebalanced\n8500 w0.0 drop 1 a 100\n{has}"
    ));
    let (kind, lines) = only(&entries);
    assert_eq!(kind, Kind::JobLost);
    assert!(lines.contains(&"w0.0 drop 1 a 100".to_owned()), "{lines:?}");
    // It was deleted, and is still there and held.
    let deleted = "8900 m0.0 ask o2 delete a -\n8901 m0.0 done o2 a releasing\n";
    let entries = history(&format!("{ADDED}{deleted}{has}"));
    let expected = [
        "w0.0 add 1 a 100 o1",
        "m0.0 ask o2 delete a -",
        "m0.0 done o2 a releasing",
        "m0.0 has a assigned:1:100",
    ];
    assert_eq!(only(&entries), (Kind::JobNotGone, expected.map(str::to_owned).to_vec()));
    // An update never came.
    let updated = "8900 m0.0 ask o2 update a o2\n8901 m0.0 done o2 a pushed\n";
    let entries = history(&format!("{ADDED}{updated}{has}"));
    let expected = ["w0.0 add 1 a 100 o1", "m0.0 ask o2 update a o2", "m0.0 done o2 a pushed"];
    assert_eq!(only(&entries), (Kind::StalePayload, expected.map(str::to_owned).to_vec()));
    // Something waits.
    let entries = history(&format!("{ADDED}{}", has.replace("cluster 0 0 0", "cluster 2 1 0")));
    assert_eq!(only(&entries), (Kind::Waiting, vec!["m0.0 cluster 2 1 0".into()]));
}

#[test]
fn a_process_that_ends_by_itself_is_found() {
    let entries = history("0 w0.0 JOINED 1\n10 w0.0 died exit_status:_101");
    assert_eq!(only(&entries), (Kind::Died, vec!["w0.0 died exit_status:_101".into()]));
}

#[test]
fn an_excerpt_has_times_since_the_beginning_and_says_what_is_wrong() {
    let entries = history("1000 w0.0 JOINED 1\n1010 w0.0 add 1 a 100 o1\n1020 w0.0 update 1 a 90 o2");
    let text = check(&entries)[0].excerpt(&entries);
    let expected = "an epoch that went back: the epoch of a at worker 1 falls from 100 to 90
        10.000 ms  w0.0   add 1 a 100 o1
        20.000 ms  w0.0   update 1 a 90 o2
";
    assert_eq!(
        text.lines().map(str::trim).collect::<Vec<_>>(),
        expected.lines().map(str::trim).collect::<Vec<_>>()
    );
}

#[test]
fn handovers_are_counted() {
    let entries = history(
        "0 w0.0 JOINED 1\n1 w0.0 add 1 a 1 o\n2 w0.0 add 1 b 2 o\n3 w1.0 add 2 a 3 o\n4 w1.0 add 2 a 4 o",
    );
    assert_eq!(judge::handovers(&entries), 2);
}
