//! What the workers saw, all of them together: no job is held by two, and what is to be held is.

use std::collections::{HashMap, HashSet};

use super::child::Child;

/// A job came or went, by the machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    job: u32,
    at: u64,
    /// One that ends at the same microsecond ends first.
    added: bool,
    process: usize,
}

fn read(children: &[Child]) -> Vec<Seen> {
    let mut all = Vec::new();
    for (process, child) in children.iter().enumerate() {
        let bytes = std::fs::read(child.file()).expect("its file");
        // A record that a kill cut short is none.
        all.extend(bytes.chunks_exact(16).map(|record| Seen {
            at: u64::from_le_bytes(record[..8].try_into().expect("eight bytes")),
            job: u32::from_le_bytes(record[8..12].try_into().expect("four bytes")),
            added: record[12] == 1,
            process,
        }));
    }
    // Those of one process stay in the order in which they were written.
    all.sort_by_key(|seen| (seen.job, seen.at, seen.added));
    all
}

/// How often a job came to a worker.
pub(crate) fn adds(children: &[Child]) -> usize {
    read(children).iter().filter(|seen| seen.added).count()
}

/// Whether exactly these are held.
pub(crate) fn is_settled(children: &[Child], alive: &HashSet<u32>) -> bool {
    let mut held: HashMap<u32, i32> = HashMap::new();
    for seen in read(children) {
        let gone = children[seen.process].killed.is_some();
        *held.entry(seen.job).or_default() += if gone {
            0
        } else if seen.added {
            1
        } else {
            -1
        };
    }
    held.retain(|_, count| *count != 0);
    held.len() == alive.len() && alive.iter().all(|job| held.get(job) == Some(&1))
}

/// What is wrong, a line each.
pub(crate) fn check(children: &[Child], alive: &HashSet<u32>) -> Vec<String> {
    let (mut faults, mut held) = (Vec::new(), HashSet::new());
    // The process that holds a job, and since when.
    let mut holder: Option<(usize, u64)> = None;
    let all = read(children);
    for (index, seen) in all.iter().enumerate() {
        let Seen { job, at, added, process } = *seen;
        // Whoever is killed holds nothing from then on.
        if let Some((other, _)) = holder
            && children[other].killed.is_some_and(|killed| killed <= at)
        {
            holder = None;
        }
        match (added, holder) {
            (true, Some((other, since))) => faults.push(format!(
                "job {job} is held twice: by process {other} since {since} us, and by process {process} from {at} us"
            )),
            (false, Some((other, _))) if other != process => {
                faults.push(format!("job {job} ends in process {process} at {at} us, and process {other} has it"));
            }
            (false, None) => faults.push(format!("job {job} ends in process {process}, which does not have it")),
            _ => {}
        }
        holder = added.then_some((process, at));
        let is_last = all.get(index + 1).is_none_or(|next| next.job != job);
        if is_last && holder.take().is_some_and(|(process, _)| children[process].killed.is_none()) {
            held.insert(job);
        }
    }
    faults.extend(alive.difference(&held).map(|job| format!("job {job} is lost: nobody holds it")));
    faults.extend(held.difference(alive).map(|job| format!("job {job} was deleted and is held")));
    faults
}
