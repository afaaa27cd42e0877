//! Until when a hold counts, and when it need not: the table in `checker`, in numbers.

use super::book::{Away, Book, Hold, Life, NEVER, NOISE, RECOVER, WAKE, is_fence, recover};
use super::history::{Us, What};

impl Book<'_> {
    /// When the holder knew that it has to stop.
    pub(super) fn told_at(&self, hold: &Hold<'_>) -> Option<Us> {
        hold.told.into_iter().chain(hold.delete).map(|line| self.at(line)).min()
    }

    /// The earliest that something may have happened which a process noted at `at`: it may have stood still between.
    fn earliest(&self, who: &str, busy: &[(Us, Us)], at: Us) -> Us {
        let still = self.processes.get(who).map_or(&[][..], |process| &process.still);
        let windows = || still.iter().map(|still| (still.from, still.to)).chain(busy.iter().copied());
        let mut earliest = at.saturating_sub(NOISE);
        // One such time may follow the other before anything is noted; what it runs in between counts against it.
        let mut left = WAKE;
        while let Some((from, to)) = windows()
            .filter(|(from, to)| *from < earliest && earliest <= to.saturating_add(left))
            .max_by_key(|(_, to)| *to)
        {
            left -= earliest.saturating_sub(to);
            earliest = from;
        }
        earliest
    }

    /// Until when a hold counts, however long the handler goes on: see the table in `checker`.
    pub(super) fn counts_until(&self, hold: &Hold<'_>) -> Us {
        let life = self.life(hold);
        let mut until = hold.end;
        if let Some(told) = self.told_at(hold) {
            let earliest = self.earliest(life.who, &[], told);
            let allowed = match hold.reason {
                Some(reason) if !is_fence(reason) => life.release,
                // Dropped by its consumer, which is as a `Delete`.
                None if life.gone.is_some() => life.release,
                // Of its lock, or nobody knows.
                _ => life.margin,
            };
            until = until.min(earliest + allowed);
        } else if let Some((killed, _)) = self.processes.get(life.who).and_then(|process| process.killed) {
            // It was killed while it stood still: nobody told it, nobody could.
            let earliest = self.earliest(life.who, &[], killed);
            if earliest < killed.saturating_sub(NOISE) {
                until = until.min(earliest + life.margin);
            }
        }
        if let Some(lost) = self.lost(life).or_else(|| self.may_have_lost(hold)) {
            until = until.min(lost + life.margin);
        }
        if let Some((wiped, _)) = self.wipe_of(hold) {
            until = until.min(wiped.from);
        }
        until
    }

    /// The earliest that the worker may have given up because of its lock.
    pub(super) fn lost(&self, life: &Life<'_>) -> Option<Us> {
        // Its handlers were told at once; that its consumer did not look changes nothing.
        if let Some(told) = life.handlers_fenced {
            return Some(self.earliest(life.who, &[], self.at(told)));
        }
        life.fenced.map(|line| self.earliest(life.who, &life.busy, self.at(line)))
    }

    /// The same of a worker whose consumer was gone, or dead, before it could see that. Whom its lock's end would have been
    /// told is told; this is about a hold that was told to end before, for another reason, and then there is no other word.
    /// It takes trouble that may cost a lock, which the consumer saw nothing new after, and had no time to see the `Close` of.
    fn may_have_lost(&self, hold: &Hold<'_>) -> Option<Us> {
        let life = self.life(hold);
        self.told_at(hold)?;
        let process = self.processes.get(life.who)?;
        let gone = life.gone.map(|line| self.at(line));
        let killed = process.killed.map(|(at, _)| at);
        let end = gone.into_iter().chain(killed).min().filter(|_| life.close.is_none())?;
        let speaks =
            |line: &&usize| matches!(self.entries[**line].what, What::Add { .. } | What::Update { .. });
        let last = life.events.iter().rev().find(speaks).map_or(0, |line| self.at(*line));
        // A worker that was dropped goes on until its handlers are done.
        let until = gone.map_or(end, |_| hold.end);
        let unseen = |from: Us, to: Us| {
            let mut seen = to.saturating_add(recover(from, to));
            for (busy, free) in &life.busy {
                if *busy <= seen && *free > from {
                    seen = seen.max(free.saturating_add(WAKE));
                }
            }
            seen >= end
        };
        let still = process.still.iter().map(|still| (still.from, still.to));
        let away = self.away.iter().map(|away| (away.from, away.to));
        let trouble = still.chain(process.net.iter().copied()).chain(away);
        let costs = |(from, to): &(Us, Us)| {
            to - from > life.margin && *to > last && *from < until && unseen(*from, *to)
        };
        trouble.filter(costs).map(|(from, _)| from).min()
    }

    /// The wipe of the cluster that the holder is a member of, and when it was over.
    pub(super) fn wipe_of(&self, hold: &Hold<'_>) -> Option<(Away, Us)> {
        let joined = self.at(self.life(hold).joined);
        let wipe = self.away.iter().find(|away| away.wiped && away.from > joined)?;
        Some((*wipe, wipe.to))
    }

    /// When a hold counts: parts of the time from its `Add` on.
    pub(super) fn counts(&self, hold: &Hold<'_>) -> Vec<(Us, Us)> {
        let until = self.counts_until(hold);
        let mut parts = vec![(hold.from, until)];
        for (from, to) in self.excuses(self.life(hold)).into_iter().chain(self.forgotten(hold)) {
            parts = parts
                .into_iter()
                .flat_map(|(start, end)| [(start, end.min(from)), (start.max(to), end)])
                .filter(|(start, end)| start < end)
                .collect();
        }
        parts.retain(|(start, end)| start < end);
        parts
    }

    /// When the server may not know of a hold, as it has lost what was written last: until the holder has heard of it,
    /// and if it was told to let go then, to the end.
    fn forgotten(&self, hold: &Hold<'_>) -> Vec<(Us, Us)> {
        let mut all = Vec::new();
        for away in &self.away {
            let Some(since) = away.lost_since.filter(|_| hold.from <= away.to && hold.end > away.from) else {
                continue;
            };
            let mut until = away.to + recover(away.from, away.to);
            if let Some(process) = self.processes.get(self.life(hold).who) {
                let still = process.still.iter().map(|still| (still.from, still.to.saturating_add(WAKE)));
                let net =
                    process.net.iter().map(|(from, to)| (*from, to.saturating_add(recover(*from, *to))));
                let mut own: Vec<(Us, Us)> = still.chain(net).collect();
                own.sort_unstable();
                for (_, to) in
                    own.into_iter().filter(|(from, to)| *to > away.from && *from < away.to + RECOVER)
                {
                    until = until.max(to);
                }
            }
            let told = self.told_at(hold).is_some_and(|told| (since..until).contains(&told));
            all.push((away.from, if told { NEVER } else { until }));
        }
        all
    }

    /// Whether a worker got the job while it could not know that it had lost everything.
    pub(super) fn is_excused(&self, hold: &Hold<'_>) -> bool {
        let life = self.life(hold);
        let within = |(from, to): (Us, Us)| (from..to).contains(&hold.from);
        let wiped = self.wipe_of(hold).map(|(wipe, to)| (wipe.from, to.saturating_add(life.ttl + RECOVER)));
        self.excuses(life).into_iter().chain(wiped).any(within)
    }

    /// When a lenient worker may be wrong: it was cut off for longer than its lock is sure to last.
    pub(super) fn excuses(&self, life: &Life<'_>) -> Vec<(Us, Us)> {
        if !life.lenient {
            return Vec::new();
        }
        let process = self.processes.get(life.who);
        let still =
            process.iter().flat_map(|process| process.still.iter().map(|still| (still.from, still.to)));
        let net = process.iter().flat_map(|process| process.net.iter().copied());
        let away = self.away.iter().map(|away| (away.from, away.to));
        let windows = still.chain(net).chain(away).filter(|(from, to)| to - from > life.ttl / 2);
        windows.map(|(from, to)| (from + life.ttl / 2, to.saturating_add(recover(from, to)))).collect()
    }
}
