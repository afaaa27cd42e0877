//! Sync: pages of what a worker holds.

use super::bench::{Bench, id};
use crate::id::Revision;
use crate::message::{Cursor, RowState, SPAN};
use crate::redis::script;
use crate::redis::store::{BATCH_BYTES, BATCH_JOBS};
use crate::test_server::Reply;

/// One page: the cursor of the next, and the jobs.
fn page(bench: &Bench, cursor: i64, limit: usize, max_bytes: usize) -> (i64, Vec<String>) {
    let incarnation = bench.incarnation.clone();
    let numbers = [cursor.to_string(), limit.to_string(), max_bytes.to_string()];
    let [cursor, limit, max_bytes] = &numbers;
    let args =
        [incarnation.as_bytes(), b"1", b"0", cursor.as_bytes(), limit.as_bytes(), max_bytes.as_bytes()];
    let reply = bench.run(&script::SYNC, 1, &args);
    let items = reply.list();
    assert_eq!(items[0].int(), 1);
    (items[4].int(), items[5..].chunks(5).map(|row| row[0].text()).collect())
}

/// All pages, each with its cursor.
fn pages(bench: &Bench, limit: usize, max_bytes: usize) -> Vec<(i64, Vec<String>)> {
    let mut pages = vec![page(bench, -1, limit, max_bytes)];
    while let Some((next, _)) = pages.last().filter(|(next, _)| *next != -1) {
        pages.push(page(bench, *next, limit, max_bytes));
        assert!(pages.len() < 100, "the pages do not end: {pages:?}");
    }
    pages
}

/// Makes worker 1 hold jobs, each with such a residue.
fn hold(bench: &Bench, jobs: &[(&str, u64)]) {
    for (job, residue) in jobs {
        let grant = (1_700_000_000_000_000 / SPAN * SPAN + residue).to_string();
        bench.command(&["HSET", &bench.key("owner"), job, &format!("a 1 {grant} {grant}")]);
        bench.command(&["HSET", &bench.key("jobs"), job, "payload"]);
        bench.command(&["ZADD", &bench.key("assigned"), &(SPAN + residue).to_string(), job]);
    }
}

// Rule 2: a page ends between two residues, so that it is known which grants it covers.
#[tokio::test(flavor = "multi_thread")]
async fn pages_never_part_rows_of_equal_residue() {
    let (bench, _) = Bench::with_workers(1).await;
    hold(&bench, &[("a", 0), ("b", 5), ("c", 5), ("d", 5), ("e", 7), ("f", 9), ("g", 9), ("h", SPAN - 1)]);
    let shown = |limit, max_bytes| -> Vec<(i64, String)> {
        pages(&bench, limit, max_bytes).into_iter().map(|(next, jobs)| (next, jobs.concat())).collect()
    };
    let page = |next: i64, jobs: &str| (next, jobs.to_owned());
    let wide = 1 << 20;
    assert_eq!(shown(8, wide), [page(-1, "abcdefgh")]);
    assert_eq!(shown(7, wide), [page(9, "abcdefg"), page(-1, "h")]);
    assert_eq!(shown(6, wide), [page(7, "abcde"), page(-1, "fgh")]);
    assert_eq!(shown(3, wide), [page(0, "a"), page(5, "bcd"), page(9, "efg"), page(-1, "h")]);
    // Smaller than the group: the group is a page nevertheless.
    assert_eq!(shown(2, wide), [page(0, "a"), page(5, "bcd"), page(7, "e"), page(9, "fg"), page(-1, "h")]);
    assert_eq!(shown(1, wide), [page(0, "a"), page(5, "bcd"), page(7, "e"), page(9, "fg"), page(-1, "h")]);
    // Each payload has seven bytes.
    assert_eq!(shown(8, 1), [page(0, "a"), page(5, "bcd"), page(7, "e"), page(9, "fg"), page(-1, "h")]);
    assert_eq!(shown(8, 8), [page(5, "abcd"), page(9, "efg"), page(-1, "h")]);
    assert_eq!(shown(8, 29), [page(7, "abcde"), page(-1, "fgh")]);
    // No room at all is an odd wish, and gets on nevertheless.
    assert_eq!(shown(8, 0), [page(0, "a"), page(5, "bcd"), page(7, "e"), page(9, "fg"), page(-1, "h")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workers_rows_and_orphans_are_not_in_it() {
    let (bench, members) = Bench::with_workers(2).await;
    hold(&bench, &[("a", 1), ("lost", 2)]);
    bench.command(&["HDEL", &bench.key("owner"), "lost"]);
    hold(&bench, &[("stale", 3)]);
    bench.command(&["HSET", &bench.key("owner"), "stale", "a 2 9 9"]);
    bench.command(&["HSET", &bench.key("owner"), "other", "a 2 9 9"]);
    bench.command(&["ZADD", &bench.key("assigned"), &(2 * SPAN).to_string(), "other"]);
    assert_eq!(pages(&bench, 8, 1 << 20), [(-1, vec!["a".to_owned()])]);
    let other = bench.store.sync(&members[1], Revision(0), None).await.unwrap().unwrap();
    assert_eq!(other.rows[0].job, id("other"));
    // A page of orphans only has a cursor, and no row.
    bench.command(&["HDEL", &bench.key("owner"), "a"]);
    assert_eq!(pages(&bench, 1, 1 << 20), [(1, vec![]), (2, vec![]), (-1, vec![])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_comes_only_for_what_is_granted_after_since() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (_, a) = bench.add("a", "one").await;
    let (_, b) = bench.add("b", "two").await;
    let (_, c) = bench.add("c", "three").await;
    bench.delete("c", Some(c)).await;
    bench.forget(); // r5 is the delete
    let page = bench.store.sync(&members[0], a, None).await.unwrap().unwrap();
    let mut rows: Vec<_> =
        page.rows.into_iter().map(|row| (row.job.to_string(), row.born, row.state)).collect();
    rows.sort_by_key(|row| row.0.clone());
    assert_eq!(
        rows,
        [
            ("a".into(), a, RowState::Active(None)),
            ("b".into(), b, RowState::Active(Some("two".into()))),
            ("c".into(), Revision(0), RowState::Releasing), // rule 3
        ]
    );
    assert_eq!((bench.name(page.revision), page.inbox, page.next), ("r5", page.revision, None));
    assert_eq!(bench.news(), [""; 0], "it reads only");
}

// Promise: bounded. What one call returns, and takes of the server's time, is limited, whatever a worker holds.
#[tokio::test(flavor = "multi_thread")]
async fn the_stores_pages_are_bounded_and_lose_nothing() {
    let (bench, members) = Bench::with_workers(1).await;
    let big: bytes::Bytes = vec![7; BATCH_BYTES / 3].into();
    let mut jobs: Vec<_> =
        (0..BATCH_JOBS + 20).map(|at| (id(&format!("j{at}")), bytes::Bytes::new())).collect();
    jobs.extend((0..7).map(|at| (id(&format!("big{at}")), big.clone())));
    for batch in jobs.chunks(BATCH_JOBS) {
        bench.store.add(batch).await.unwrap();
    }
    let (mut seen, mut cursor, mut most) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = bench.store.sync(&members[0], Revision(0), cursor).await.unwrap().unwrap();
        assert!(page.rows.len() <= BATCH_JOBS);
        most =
            most.max(page.rows.iter().filter(|row| row.state == RowState::Active(Some(big.clone()))).count());
        for row in page.rows {
            assert!(seen.insert(row.job), "listed twice");
        }
        assert!(page.next > cursor || page.next.is_none());
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), most <= 4), (jobs.len(), true), "{most}");
    let beyond = bench.store.sync(&members[0], Revision(0), Some(Cursor(SPAN - 1))).await.unwrap().unwrap();
    assert_eq!((beyond.rows.len(), beyond.next), (0, None));
    assert!(matches!(bench.command(&["PING"]), Reply::Simple(_)));
}
