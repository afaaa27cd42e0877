//! The frames: a MessagePack array that the scripts write, then, for an `add`, the job's payload as it is.
//!
//! ```text
//! inbox     [1, revision, previous, 1, job, born] payload...     add; the grant is the revision
//!           [1, revision, previous, 2, job, grant, reason]       delete
//!           [1, revision, previous, 3]                           fenced
//!           [1, revision, previous, 4, job, grant] payload...    update
//!           [1, revision, previous, 5]                           attend
//! control   [1, kind, worker]                                    1 left, 2 reaping, 3 reaped
//! released  [1, job, grant]
//! changes   [1, last, previous, [[kind, revision, job or worker, ...], ...]]
//! ```
//!
//! An array may be longer than this: what a later release adds at its end is passed over. Another version or
//! kind is [`Malformed`], which a receiver treats as a gap.

use bytes::Bytes;
use rmp::{Marker, decode};

use crate::change::Change;
use crate::id::{Epoch, JobId, Revision, WorkerId};
use crate::message::{Batch, Body, Control, DeleteReason, Frame, Released};

const VERSION: u64 = 1;

/// Not a message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads an array's fields one by one, without trusting what it says of lengths: nothing is allocated.
struct Fields<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Fields<'a> {
    fn new(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let left = decode::read_array_len(&mut bytes).map_err(|_| Malformed)?;
        let mut fields = Self { rest: bytes, left };
        if fields.int()? != VERSION {
            return Err(Malformed);
        }
        Ok(fields)
    }

    fn step(&mut self) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(1).ok_or(Malformed)?;
        Ok(())
    }

    fn int(&mut self) -> Result<u64, Malformed> {
        self.step()?;
        decode::read_int(&mut self.rest).map_err(|_| Malformed)
    }

    fn revision(&mut self) -> Result<Revision, Malformed> {
        self.int().map(Revision)
    }

    fn job(&mut self) -> Result<JobId, Malformed> {
        self.step()?;
        let (id, rest) = decode::read_str_from_slice(self.rest).map_err(|_| Malformed)?;
        self.rest = rest;
        JobId::new(id).map_err(|_| Malformed)
    }

    fn worker(&mut self) -> Result<WorkerId, Malformed> {
        self.int().map(WorkerId)
    }

    /// One change; `None` for a kind that is not known.
    fn change(&mut self) -> Result<Option<Change>, Malformed> {
        let (kind, revision) = (self.int()?, self.revision()?);
        Ok(Some(match kind {
            1 => Change::JobAdded { revision, job: self.job()? },
            2 => {
                let (job, worker) = (self.job()?, self.worker()?);
                Change::JobAssigned { revision, job, worker, epoch: Epoch(revision.get()) }
            }
            3 => Change::JobUpdated { revision, job: self.job()? },
            4 => Change::JobMoving { revision, job: self.job()? },
            5 => Change::JobReleased { revision, job: self.job()?, worker: self.worker()? },
            6 => Change::JobDeleted { revision, job: self.job()? },
            7 => Change::JobQuarantined { revision, job: self.job()? },
            8 => Change::JobRequeued { revision, job: self.job()? },
            11 => Change::WorkerJoined { revision, worker: self.worker()? },
            12 => Change::WorkerDraining { revision, worker: self.worker()? },
            13 => Change::WorkerResumed { revision, worker: self.worker()? },
            14 => Change::WorkerLeft { revision, worker: self.worker()? },
            15 => Change::WorkerExpired { revision, worker: self.worker()? },
            _ => return Ok(None),
        }))
    }

    /// Passes over a field that this release does not know: a number, nil, a boolean or a string.
    fn skip(&mut self) -> Result<(), Malformed> {
        self.step()?;
        let mut rest = self.rest;
        let marker = decode::read_marker(&mut rest).map_err(|_| Malformed)?;
        let length = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                rest = self.rest;
                decode::read_str_len(&mut rest).map_err(|_| Malformed)? as usize
            }
            _ => return Err(Malformed),
        };
        self.rest = rest.get(length..).ok_or(Malformed)?;
        Ok(())
    }

    /// What follows the array.
    fn finish(mut self) -> Result<&'a [u8], Malformed> {
        while self.left > 0 {
            self.skip()?;
        }
        Ok(self.rest)
    }
}

/// A message on an inbox. The payload is copied out: the bytes it came in are part of a much larger buffer.
pub(crate) fn frame(bytes: &[u8]) -> Result<Frame, Malformed> {
    let mut fields = Fields::new(bytes)?;
    let (revision, previous) = (fields.revision()?, fields.revision()?);
    let body = match fields.int()? {
        1 => {
            let (job, born) = (fields.job()?, fields.revision()?);
            Body::Add { job, born, payload: Bytes::copy_from_slice(fields.finish()?) }
        }
        2 => Body::Delete {
            job: fields.job()?,
            grant: fields.revision()?,
            reason: match fields.int()? {
                1 => DeleteReason::Removed,
                2 => DeleteReason::Rebalanced,
                _ => return Err(Malformed),
            },
        },
        3 => Body::Fenced,
        4 => {
            let (job, grant) = (fields.job()?, fields.revision()?);
            Body::Update { job, grant, payload: Bytes::copy_from_slice(fields.finish()?) }
        }
        5 => Body::Attend,
        _ => return Err(Malformed),
    };
    Ok(Frame { revision, previous, body })
}

/// A message on the control channel.
pub(crate) fn control(bytes: &[u8]) -> Result<Control, Malformed> {
    let mut fields = Fields::new(bytes)?;
    let (kind, worker) = (fields.int()?, WorkerId(fields.int()?));
    match kind {
        1 => Ok(Control::Left(worker)),
        2 => Ok(Control::Reaping(worker)),
        3 => Ok(Control::Reaped(worker)),
        _ => Err(Malformed),
    }
}

/// A message on the released channel.
pub(crate) fn released(bytes: &[u8]) -> Result<Released, Malformed> {
    let mut fields = Fields::new(bytes)?;
    Ok(Released { job: fields.job()?, grant: fields.revision()? })
}

/// A message on the channel of changes, or in the journal. Kinds that a later release adds are passed over. What is not in
/// the order of its revisions, all between `previous` and `last`, is malformed: nobody would know what it comes after.
pub(crate) fn batch(bytes: &[u8]) -> Result<Batch, Malformed> {
    let mut fields = Fields::new(bytes)?;
    let (last, previous) = (fields.revision()?, fields.revision()?);
    fields.step()?;
    let mut rest = fields.rest;
    let count = decode::read_array_len(&mut rest).map_err(|_| Malformed)?;
    let mut changes = Vec::new(); // not `count`: it may lie
    for _ in 0..count {
        let left = decode::read_array_len(&mut rest).map_err(|_| Malformed)?;
        let mut fields = Fields { rest, left };
        changes.extend(fields.change()?);
        rest = fields.finish()?;
    }
    let revisions = changes.iter().map(|change| change.revision().unwrap_or_default());
    let begins = previous < revisions.clone().next().unwrap_or(last);
    let ends = revisions.clone().next_back().unwrap_or(last) <= last;
    if begins && ends && revisions.is_sorted_by(|one, next| one < next) {
        Ok(Batch { last, previous, changes })
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(fields: &impl serde::Serialize, payload: &[u8]) -> Vec<u8> {
        let mut bytes = rmp_serde::to_vec(fields).expect("encodes");
        bytes.extend_from_slice(payload);
        bytes
    }

    /// `changes`: each packed already.
    fn pack_batch(last: u64, previous: u64, changes: &[Vec<u8>]) -> Vec<u8> {
        let head = rmp_serde::to_vec(&(1, last, previous)).expect("encodes");
        let mut count = Vec::new();
        rmp::encode::write_array_len(&mut count, u32::try_from(changes.len()).unwrap()).expect("encodes");
        [&[0x94], &head[1..], &count, &changes.concat()].concat()
    }

    /// One of each kind, with revisions from 1 on.
    fn one_of_each(job: &JobId, worker: WorkerId) -> (Vec<Change>, Vec<Vec<u8>>) {
        let (text, number) = (job.as_str(), worker.0);
        let job = || job.clone();
        let r = Revision;
        let pairs = vec![
            (Change::JobAdded { revision: r(1), job: job() }, pack(&(1, 1, text), b"")),
            (
                Change::JobAssigned { revision: r(2), job: job(), worker, epoch: Epoch(2) },
                pack(&(2, 2, text, number), b""),
            ),
            (Change::JobUpdated { revision: r(3), job: job() }, pack(&(3, 3, text), b"")),
            (Change::JobMoving { revision: r(4), job: job() }, pack(&(4, 4, text), b"")),
            (Change::JobReleased { revision: r(5), job: job(), worker }, pack(&(5, 5, text, number), b"")),
            (Change::JobDeleted { revision: r(6), job: job() }, pack(&(6, 6, text), b"")),
            (Change::JobQuarantined { revision: r(7), job: job() }, pack(&(7, 7, text), b"")),
            (Change::JobRequeued { revision: r(8), job: job() }, pack(&(8, 8, text), b"")),
            (Change::WorkerJoined { revision: r(11), worker }, pack(&(11, 11, number), b"")),
            (Change::WorkerDraining { revision: r(12), worker }, pack(&(12, 12, number), b"")),
            (Change::WorkerResumed { revision: r(13), worker }, pack(&(13, 13, number), b"")),
            (Change::WorkerLeft { revision: r(14), worker }, pack(&(14, 14, number), b"")),
            (Change::WorkerExpired { revision: r(15), worker }, pack(&(15, 15, number), b"")),
        ];
        pairs.into_iter().unzip()
    }

    proptest! {
        #[test]
        fn a_batch_is_read_as_it_was_written_and_what_a_later_release_adds_is_passed_over(
            job in "[^\\p{Cc}]{1,63}", worker in any::<u64>(), kind in prop_oneof![Just(0), Just(9), Just(10), 16..u64::MAX],
            at in 0..14_usize, field in "[a-z]{0,40}",
        ) {
            let (changes, packed) = one_of_each(&JobId::new(job).unwrap(), WorkerId(worker));
            let expected = Batch { last: Revision(15), previous: Revision(0), changes };
            prop_assert_eq!(batch(&pack_batch(15, 0, &packed)), Ok(expected.clone()));
            // A change of another kind, fields behind a change's own, and fields behind the changes.
            let mut more = packed.clone();
            more.insert(at, pack(&(kind, 9, &field, worker, true, 0.5), b""));
            if at != 0 {
                let [0x90..0x9f, ..] = &mut more[0][..] else { panic!("a short array") };
                more[0][0] += 2;
                more[0].extend(pack(&(&field, worker), b"").split_off(1));
            }
            let mut bytes = pack_batch(15, 0, &more);
            bytes[0] += 1;
            bytes.extend(pack(&(&field,), b"").split_off(1));
            prop_assert_eq!(batch(&bytes), Ok(expected));
        }

        #[test]
        fn a_batch_that_was_cut_off_or_altered_does_not_panic(
            job in "[a-z]{1,40}", at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let (_, packed) = one_of_each(&JobId::new(job).unwrap(), WorkerId(1 << 40));
            let mut bytes = pack_batch(15, 0, &packed);
            prop_assert!((0..bytes.len()).all(|end| batch(&bytes[..end]).is_err()));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(Batch { last, previous, changes }) = batch(&bytes) {
                let mut revisions = vec![previous];
                revisions.extend(changes.iter().filter_map(Change::revision));
                prop_assert!(revisions.is_sorted_by(|one, next| one < next) && *revisions.last().unwrap() <= last);
            }
        }
    }

    proptest! {
        // Promise: no input, however hostile, panics.
        #[test]
        fn any_bytes_are_a_message_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (frame(&bytes), control(&bytes), released(&bytes), batch(&bytes));
        }

        #[test]
        fn a_header_with_any_bytes_behind_it_does_not_panic(
            head in prop_oneof![
                Just(vec![0x96, 1]), Just(vec![0xdc, 0xff, 0xff, 1]), Just(vec![0x93, 1]), Just(vec![0x94, 1, 9, 1]),
                Just(vec![0x94, 1, 9, 1, 0x92, 0x93]), Just(vec![0x94, 1, 9, 1, 0x91, 0x94, 2, 5, 0xa1, b'a']),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [head, rest].concat();
            let _ = (frame(&bytes), control(&bytes), released(&bytes), batch(&bytes));
        }

        #[test]
        fn an_add_is_read_as_it_was_written(
            revision in 0u64..1 << 53, previous in 0u64..1 << 53, born in 0u64..1 << 53,
            job in "[a-zA-Z0-9@/._-]{1,255}", payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = pack(&(1, revision, previous, 1, &job, born), &payload);
            let expected = Frame {
                revision: Revision(revision),
                previous: Revision(previous),
                body: Body::Add { job: JobId::new(&job).unwrap(), born: Revision(born), payload: payload.into() },
            };
            prop_assert_eq!(frame(&bytes), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn every_other_message_is_read_as_it_was_written(
            revision in 0u64..1 << 53, previous in 0u64..1 << 53, number in any::<u64>(), job in "[^\\p{Cc}]{1,63}",
        ) {
            let (revision, previous, job) = (Revision(revision), Revision(previous), JobId::new(job).unwrap());
            let head = (1, revision.0, previous.0);
            for (code, reason) in [(1, DeleteReason::Removed), (2, DeleteReason::Rebalanced)] {
                let bytes = pack(&(head.0, head.1, head.2, 2, job.as_str(), number, code), b"");
                let body = Body::Delete { job: job.clone(), grant: Revision(number), reason };
                prop_assert_eq!(frame(&bytes), Ok(Frame { revision, previous, body }));
            }
            for (kind, body) in [(3, Body::Fenced), (5, Body::Attend)] {
                let bytes = pack(&(head.0, head.1, head.2, kind), b"");
                prop_assert_eq!(frame(&bytes), Ok(Frame { revision, previous, body }));
            }
            let bytes = pack(&(head.0, head.1, head.2, 4, job.as_str(), number), b"new");
            let body = Body::Update { job: job.clone(), grant: Revision(number), payload: "new".into() };
            prop_assert_eq!(frame(&bytes), Ok(Frame { revision, previous, body }));
            let worker = WorkerId(number);
            for (kind, message) in
                [(1, Control::Left(worker)), (2, Control::Reaping(worker)), (3, Control::Reaped(worker))]
            {
                prop_assert_eq!(control(&pack(&(1, kind, number), b"")), Ok(message));
            }
            let grant = Revision(number);
            prop_assert_eq!(released(&pack(&(1, job.as_str(), number), b"")), Ok(Released { job, grant }));
        }

        // What was cut off anywhere in its header is not taken for a message.
        #[test]
        fn a_message_that_was_cut_off_is_malformed(job in "[a-z]{1,40}", number in 0u64..1 << 53) {
            let add = pack(&(1, number, number, 1, &job, number), b"");
            let delete = pack(&(1, number, number, 2, &job, number, 1), b"");
            let (left, gone) = (pack(&(1, 1, number), b""), pack(&(1, &job, number), b""));
            prop_assert!((0..add.len()).all(|end| frame(&add[..end]).is_err()));
            prop_assert!((0..delete.len()).all(|end| frame(&delete[..end]).is_err()));
            prop_assert!((0..left.len()).all(|end| control(&left[..end]).is_err()));
            prop_assert!((0..gone.len()).all(|end| released(&gone[..end]).is_err()));
        }

        // One byte that is another: any answer, and no panic; the fields that come before it do not decide.
        #[test]
        fn a_byte_that_was_flipped_does_not_panic(
            job in "[a-z]{1,40}", at in any::<prop::sample::Index>(), byte in any::<u8>(), payload in "[a-z]{0,9}",
        ) {
            let mut bytes = pack(&(1, 1u64 << 50, 7, 1, &job, 1u64 << 50, "later"), payload.as_bytes());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = (frame(&bytes), control(&bytes), released(&bytes));
        }
    }

    // The server's cmsgpack writes 2^63 as a float; an id that is not UTF-8, or not an id, is none.
    #[test]
    fn a_number_or_an_id_that_is_none_is_malformed() {
        assert_eq!(control(&pack(&(1, 1, 2.0_f32.powi(63)), b"")), Err(Malformed));
        assert_eq!(control(&pack(&(1, 1, -1), b"")), Err(Malformed));
        assert_eq!(released(&[0x93, 1, 0xa2, 0xff, 0xfe, 5]), Err(Malformed));
        for id in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(released(&pack(&(1, id, 5), b"")), Err(Malformed), "{id:?}");
        }
    }

    #[test]
    fn a_length_that_lies_is_malformed_and_allocates_nothing() {
        // An id that claims to be 4 GiB long, and an array that claims 65,535 fields.
        assert_eq!(frame(&[0x96, 1, 1, 0, 1, 0xdb, 0xff, 0xff, 0xff, 0xff, b'a']), Err(Malformed));
        assert_eq!(frame(&[0xdc, 0xff, 0xff, 1, 1, 0, 3]).map(|_| ()), Ok(()), "fenced reads no further");
        assert_eq!(released(&[0x93, 1, 0xc6, 0xff, 0xff, 0xff, 0xff, 1]), Err(Malformed));
        // Four thousand million changes, an id of 4 GiB, a change of 65,535 fields, a field of 4 GiB behind it.
        assert_eq!(
            batch(&[0x94, 1, 9, 1, 0xdd, 0xff, 0xff, 0xff, 0xff, 0x93, 3, 5, 0xa1, b'a']),
            Err(Malformed)
        );
        assert_eq!(
            batch(&[0x94, 1, 9, 1, 0x91, 0x93, 1, 5, 0xdb, 0xff, 0xff, 0xff, 0xff, b'a']),
            Err(Malformed)
        );
        assert_eq!(batch(&[0x94, 1, 9, 1, 0x91, 0xdc, 0xff, 0xff, 1, 5, 0xa1, b'a']), Err(Malformed));
        assert_eq!(
            batch(&[0x94, 1, 9, 1, 0x91, 0x94, 1, 5, 0xa1, b'a', 0xdb, 0xff, 0xff, 0xff, 0xff]),
            Err(Malformed)
        );
    }

    #[test]
    fn a_batch_of_another_version_or_out_of_order_is_malformed() {
        let (_, packed) = one_of_each(&JobId::new("job").unwrap(), WorkerId(7));
        let mut other = pack_batch(15, 0, &packed);
        other[1] = 2;
        assert_eq!(batch(&other), Err(Malformed));
        let swapped = [packed[1].clone(), packed[0].clone()];
        let twice = [packed[0].clone(), packed[0].clone()];
        for (last, previous, changes) in
            [(15, 0, &swapped[..]), (15, 0, &twice), (14, 0, &packed), (15, 1, &packed)]
        {
            assert_eq!(
                batch(&pack_batch(last, previous, changes)),
                Err(Malformed),
                "{last} after {previous}"
            );
        }
        assert_eq!(batch(&pack_batch(5, 5, &[])), Err(Malformed));
        let nothing = Batch { last: Revision(6), previous: Revision(5), changes: Vec::new() };
        assert_eq!(batch(&pack_batch(6, 5, &[])), Ok(nothing));
        let negative = pack(&(1, -5, "job"), b"");
        assert_eq!(batch(&pack_batch(6, 5, &[negative])), Err(Malformed));
    }

    #[test]
    fn fields_that_a_later_release_adds_are_passed_over() {
        let bytes = pack(&(1, 9, 8, 1, "job", 7, "new", 2.5), b"payload");
        let Ok(Frame { body: Body::Add { payload, .. }, .. }) = frame(&bytes) else { panic!("an add") };
        assert_eq!(payload, "payload");
        assert_eq!(control(&pack(&(1, 3, 5, 6), b"")), Ok(Control::Reaped(WorkerId(5))));
    }

    #[test]
    fn another_version_or_kind_is_malformed() {
        assert_eq!(frame(&pack(&(2, 9, 8, 3), b"")), Err(Malformed));
        assert_eq!(frame(&pack(&(1, 9, 8, 99), b"")), Err(Malformed));
        assert_eq!(control(&pack(&(1, 9, 5), b"")), Err(Malformed));
        assert_eq!(frame(b""), Err(Malformed));
    }
}
