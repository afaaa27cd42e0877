//! sync: pages of what a worker holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use fred::types::Value;

use super::bench::{Bench, id};
use crate::id::{Revision, WorkerId};
use crate::message::{Cursor, Page, RowState, SPAN};
use crate::redis::reply::Reply;
use crate::redis::script;
use crate::redis::store::Member;

const NOTHING: [&str; 0] = [];

async fn page(bench: &Bench, member: &Member, since: Revision, cursor: Option<Cursor>) -> Page {
    bench.store.sync(member, since, cursor).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_snapshot_tells_what_is_held_and_what_is_to_be_let_go_of() {
    let (mut bench, members) = Bench::with_workers(2).await;
    let (_, a) = bench.add("a", "one").await;
    bench.add("other", "x").await;
    let (_, gone) = bench.add("gone", "x").await;
    bench.command(&["ZINCRBY", "@load", "5", "2"]);
    let (_, again) = bench.add("again", "x").await;
    bench.delete("gone", None).await;
    bench.delete("again", None).await;
    let (_, second) = bench.add("again", "y").await;
    bench.look();
    let page = page(&bench, &members[0], Revision(0), None).await;
    assert_eq!(bench.look(), NOTHING, "it only reads");
    let rows: Vec<_> =
        page.rows.iter().map(|row| (row.job.as_str(), row.grant, row.born, row.state.clone())).collect();
    let active = |payload: &'static str| RowState::Active(Some(Bytes::from_static(payload.as_bytes())));
    assert_eq!(
        rows,
        [
            ("a", a, a, active("one")),
            ("gone", gone, Revision(0), RowState::Releasing),
            ("again", again, second, RowState::Releasing),
        ]
    );
    assert_eq!((page.revision, page.lifted, page.next), (second, Revision(0), None));
    let inbox = bench.command(&["HGET", "@inbox", "1"]).int();
    assert_eq!(page.inbox, Revision(inbox as u64));
}

// What the worker has seen is not sent to it again.
#[tokio::test]
async fn since_leaves_out_the_payloads_of_older_grants() {
    let (bench, members) = Bench::with_workers(1).await;
    let (_, old) = bench.add("old", "one").await;
    let (_, new) = bench.add("new", "").await;
    let states = async |since| {
        page(&bench, &members[0], since, None).await.rows.into_iter().map(|row| row.state).collect::<Vec<_>>()
    };
    let (one, empty) = (Some(Bytes::from_static(b"one")), Some(Bytes::new()));
    assert_eq!(states(Revision(0)).await, [RowState::Active(one.clone()), RowState::Active(empty.clone())]);
    assert_eq!(states(Revision(old.0 - 1)).await, [RowState::Active(one), RowState::Active(empty.clone())]);
    assert_eq!(states(old).await, [RowState::Active(None), RowState::Active(empty)]);
    assert_eq!(states(new).await, [RowState::Active(None), RowState::Active(None)]);
}

#[tokio::test]
async fn pages_of_the_store_hold_all_jobs_once() {
    let (bench, members) = Bench::with_workers(1).await;
    let jobs: Vec<_> = (0..450).map(|job| (id(&format!("{job:03}")), Bytes::from_static(b"x"))).collect();
    for batch in jobs.chunks(200) {
        bench.add_all(batch).await.unwrap();
    }
    let (mut cursor, mut seen, mut sizes) = (None, Vec::new(), Vec::new());
    loop {
        let page = page(&bench, &members[0], Revision(0), cursor).await;
        sizes.push(page.rows.len());
        seen.extend(page.rows.into_iter().map(|row| row.job));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let beyond = page(&bench, &members[0], Revision(0), Some(Cursor(SPAN - 1))).await;
    assert_eq!((beyond.rows.len(), beyond.next), (0, None));
    seen.sort();
    assert_eq!(seen, jobs.into_iter().map(|(job, _)| job).collect::<Vec<_>>());
    assert_eq!(sizes, [200, 200, 50]);
}

#[tokio::test]
async fn a_page_ends_at_about_a_megabyte() {
    let (bench, members) = Bench::with_workers(1).await;
    for job in 0..12 {
        bench.add_all(&[(id(&format!("{job:02}")), Bytes::from(vec![b'x'; 300_000]))]).await.unwrap();
    }
    let first = page(&bench, &members[0], Revision(0), None).await;
    assert_eq!(first.rows.len(), 4);
    let cursor = first.next.unwrap();
    assert_eq!(cursor.0, first.rows[3].grant.0 % SPAN);
    assert_eq!(page(&bench, &members[0], Revision(0), Some(cursor)).await.rows[0].job, id("04"));
    // Payloads that are not sent do not count.
    assert_eq!(page(&bench, &members[0], first.revision, None).await.rows.len(), 12);
}

/// Rows and `next` of one page by the script itself, with its own limits.
async fn small_page(
    bench: &Bench,
    member: &Member,
    cursor: i64,
    limit: usize,
    max_bytes: usize,
) -> (Vec<(String, u64)>, i64) {
    let args = [
        bench.incarnation.to_string(),
        "1".into(),
        "0".into(),
        cursor.to_string(),
        limit.to_string(),
        max_bytes.to_string(),
        member.token.to_string(),
    ];
    let args: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
    let reply = bench.run(&script::SYNC, WorkerId(1), &args).await.unwrap();
    let Value::Array(items) = &reply else { panic!("{reply:?}") };
    assert_eq!(items.len() % 6, 5, "five items, and six a row: nothing was cut short");
    let mut reply = Reply::new("sync", reply).unwrap();
    for _ in 0..4 {
        reply.int().unwrap();
    }
    let next = reply.int_or_none().unwrap().map_or(-1, |next| next as i64);
    let mut rows = Vec::new();
    while !reply.is_empty() {
        let (job, grant) = (reply.text().unwrap(), reply.int().unwrap());
        rows.push((job, grant));
        for _ in ["born", "changed", "state"] {
            reply.int().unwrap();
        }
        reply.bytes().unwrap();
    }
    (rows, next)
}

// Rule 2: a page covers the residues after one cursor up to the next, so rows of one residue are never parted.
#[tokio::test]
async fn pages_of_any_size_hold_each_row_once_and_part_no_residue() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for round in 0..120 {
        bench.command(&["DEL", "@assigned", "@owner", "@jobs"]);
        let (count, residues) = (below(14), 1 + below(8));
        let mut all = BTreeMap::new();
        for job in 0..count {
            // Many rows of few residues, at both ends of the range too.
            let residue = [0, 1, SPAN - 1, SPAN - 2, 7, 8, 9, 10][below(residues) as usize];
            let grant = (job + 1) * SPAN + residue;
            let (job, score) = (format!("job-{job}"), (SPAN + residue).to_string());
            bench.command(&["ZADD", "@assigned", &score, &job]);
            bench.command(&["HSET", "@owner", &job, &format!("a 1 {grant} 5")]);
            bench.command(&["HSET", "@jobs", &job, &"x".repeat(below(40) as usize)]);
            all.insert(job, grant);
        }
        // Neighbours, which are none of this worker's business.
        bench.command(&[
            "ZADD",
            "@assigned",
            &(SPAN - 1).to_string(),
            "below",
            &(2 * SPAN).to_string(),
            "above",
        ]);
        let (limit, max_bytes) = (1 + below(5) as usize, 1 + below(60) as usize);
        let told = format!("round {round}: limit {limit}, max_bytes {max_bytes}, {all:?}");
        let (mut cursor, mut seen, mut pages) = (-1, BTreeMap::new(), 0);
        loop {
            let (rows, next) = small_page(&bench, &members[0], cursor, limit, max_bytes).await;
            for (job, grant) in rows {
                let residue = (grant % SPAN) as i64;
                assert!(residue > cursor && (next == -1 || residue <= next), "{residue} of {job}: {told}");
                assert_eq!(seen.insert(job, grant), None, "twice: {told}");
            }
            pages += 1;
            assert!(pages <= count + 2, "it does not end: {told}");
            if next == -1 {
                break;
            }
            assert!(next > cursor, "{told}");
            cursor = next;
        }
        assert_eq!(seen, all, "{told}");
    }
}

/// Makes worker 1 hold jobs, each with such a residue.
fn hold(bench: &mut Bench, jobs: &[(&str, u64)]) {
    for (job, residue) in jobs {
        let grant = (1_700_000_000_000_000 / SPAN * SPAN + residue).to_string();
        bench.command(&["HSET", "@owner", job, &format!("a 1 {grant} {grant}")]);
        bench.command(&["HSET", "@jobs", job, "payload"]);
        bench.command(&["ZADD", "@assigned", &(SPAN + residue).to_string(), job]);
    }
}

/// All pages of worker 1, each with the cursor that it names.
async fn pages(bench: &Bench, member: &Member, limit: usize, max_bytes: usize) -> Vec<(i64, String)> {
    let (mut pages, mut cursor) = (Vec::new(), -1);
    loop {
        let (rows, next) = small_page(bench, member, cursor, limit, max_bytes).await;
        pages.push((next, rows.into_iter().map(|(job, _)| job).collect()));
        assert!(pages.len() < 100, "the pages do not end: {pages:?}");
        if next == -1 {
            return pages;
        }
        cursor = next;
    }
}

// Rule 2, by hand: a page ends between two residues, so that it is known which grants it covers.
#[tokio::test]
async fn a_page_ends_between_two_residues() {
    let (mut bench, members) = Bench::with_workers(1).await;
    let (last, wide) = (SPAN - 1, 1 << 20);
    hold(&mut bench, &[("a", 0), ("b", 5), ("c", 5), ("d", 5), ("e", 7), ("f", 9), ("g", 9), ("h", last)]);
    let page = |next: i64, jobs: &str| (next, jobs.to_owned());
    assert_eq!(pages(&bench, &members[0], 8, wide).await, [page(-1, "abcdefgh")]);
    assert_eq!(pages(&bench, &members[0], 7, wide).await, [page(9, "abcdefg"), page(-1, "h")]);
    assert_eq!(pages(&bench, &members[0], 6, wide).await, [page(7, "abcde"), page(-1, "fgh")]);
    let four = [page(0, "a"), page(5, "bcd"), page(9, "efg"), page(-1, "h")];
    assert_eq!(pages(&bench, &members[0], 3, wide).await, four);
    // Smaller than the group: the group is a page nevertheless. So it is where no byte is allowed.
    let each = [page(0, "a"), page(5, "bcd"), page(7, "e"), page(9, "fg"), page(-1, "h")];
    for (limit, max_bytes) in [(2, wide), (1, wide), (8, 1), (8, 0)] {
        assert_eq!(pages(&bench, &members[0], limit, max_bytes).await, each, "{limit} {max_bytes}");
    }
    // Each payload has seven bytes.
    assert_eq!(pages(&bench, &members[0], 8, 8).await, [page(5, "abcd"), page(9, "efg"), page(-1, "h")]);
    assert_eq!(pages(&bench, &members[0], 8, 29).await, [page(7, "abcde"), page(-1, "fgh")]);
}

#[tokio::test]
async fn another_workers_rows_and_orphans_are_not_in_it() {
    let (mut bench, members) = Bench::with_workers(2).await;
    hold(&mut bench, &[("a", 1), ("lost", 2), ("stale", 3)]);
    bench.command(&["HDEL", "@owner", "lost"]);
    bench.command(&["HSET", "@owner", "stale", "a 2 9 9", "other", "a 2 9 9"]);
    bench.command(&["ZADD", "@assigned", &(2 * SPAN).to_string(), "other"]);
    assert_eq!(pages(&bench, &members[0], 8, 1 << 20).await, [(-1, "a".to_owned())]);
    assert_eq!(page(&bench, &members[1], Revision(0), None).await.rows[0].job, id("other"));
    // A page of orphans has a cursor, and no row.
    bench.command(&["HDEL", "@owner", "a"]);
    let empty = |next| (next, String::new());
    assert_eq!(pages(&bench, &members[0], 1, 1 << 20).await, [empty(1), empty(2), empty(-1)]);
}
