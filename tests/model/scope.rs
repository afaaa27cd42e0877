//! What is tried: who takes part, what may happen, how often what may go wrong, and what is broken on purpose.

/// The bounds of one check. All that happens within them is tried, in every order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// Worker processes that have joined at the beginning.
    pub(crate) workers: usize,
    /// Processes that have not started yet.
    pub(crate) spare: usize,
    pub(crate) jobs: u8,
    /// How many jobs a worker holds at most; 0: any number.
    pub(crate) capacity: usize,
    /// Whether a job goes to any worker with room, not just to the least loaded (weights, names and suspicion choose
    /// others).
    pub(crate) any_worker: bool,
    /// Rows in a page of a snapshot, and jobs in a batch of a reap; 0: all.
    pub(crate) batch: usize,
    pub(crate) lenient: bool,
    /// Whether a call is run and answered in one step. If not, all else may happen in between.
    pub(crate) fused: bool,
    /// How many ticks there are at most; 0: any number.
    pub(crate) ticks: u8,
    /// What is asked of the cluster, and how often at most.
    pub(crate) asked: Asked,
    /// How much goes wrong at most, all kinds together.
    pub(crate) faults: u8,
    /// What may go wrong.
    pub(crate) may: May,
    /// What is broken on purpose.
    pub(crate) broken: Option<Break>,
}

/// What masters, the operator and the consumers ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) adds: u8,
    pub(crate) updates: u8,
    pub(crate) deletes: u8,
    /// A job is asked to move.
    pub(crate) moves: u8,
    /// A worker is told to leave.
    pub(crate) terminations: u8,
    /// A process joins as a new worker, or again after its lock was lost.
    pub(crate) starts: u8,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct May {
    /// A frame is lost.
    pub(crate) lose: bool,
    /// A frame overtakes the one before it.
    pub(crate) overtake: bool,
    /// A frame comes twice.
    pub(crate) repeat: bool,
    /// A connection is lost, and what was under way on it. Or it seems fine, and nothing comes any more.
    pub(crate) disconnect: bool,
    /// A command or its answer is lost.
    pub(crate) fail: bool,
    /// A command that its caller has given up on is run later all the same, once.
    pub(crate) linger: bool,
    /// An answer, or a frame, takes longer: other things happen first, or time passes.
    pub(crate) slow: bool,
    /// A process is stopped, and goes on at some later time.
    pub(crate) pause: bool,
    pub(crate) crash: bool,
    /// A replica takes over that has not got all.
    pub(crate) failover: bool,
}

/// What is broken on purpose. Each has a test which shows that the model finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Rule 1: the answer to an overtaken sync counts.
    OvertakenSyncCounts,
    /// Rule 1: the frames of one script have one revision.
    SharedRevision,
    /// Rule 2: the chain goes on from the last page of a snapshot, and not from the first.
    ChainFromLastPage,
    /// Rule 3: a snapshot does not tell what is being released.
    SnapshotHidesReleasing,
    /// Rule 4: the lease begins when the join is answered.
    LeaseFromJoinReply,
    /// Rule 5: a worker that leaves does not say so before it releases.
    NoDrainMark,
    /// Rule 6: the first batch of a reap takes the deadline away.
    ReapForgetsDeadline,
    /// Rule 7: the next assignment of a job does not wait for the handles of the one before.
    HandlesAreNotWaitedFor,
    /// Rule 7: what came and went unseen is not released.
    UnseenIsNotReleased,
    /// Rule 8, and "no epoch check": a release counts whatever grant it names.
    ReleaseOfAnyGrant,
    /// Rule 8: an add is carried out however late.
    AddAtAnyTime,
    /// Rule 8: a delete does not say which life of a job it means.
    DeleteOfAnyLife,
    /// Rule 9: the release timeout runs from when the consumer polls the `Delete`.
    TimeoutFromPoll,
    /// Rule 10: nobody lifts after a failover, and revisions go on from what the replica has.
    NoLift,
    /// Rule 10: the beat does not tell of the lift, and a new connection is taken for the old server.
    LiftIsNotTold,
    /// Rule 10: after a failover a worker begins with an empty view, and what goes on is added again.
    LiftBeginsAnew,
    /// Rule 10: nobody looks whether a number was given out twice.
    NoToken,
    /// Rule 10: locks whose heartbeats a failover has forgotten end.
    LiftExtendsNothing,
    /// What a heartbeat tells of the inbox is not looked at.
    NoAudit,
    /// A reap does not look at the deadline.
    ReapOfTheLiving,
    /// A job that is to move is added to its next owner before the one before has released it.
    AddBeforeRelease,
    /// The fence is measured from a heartbeat's answer instead of its sending.
    FenceFromReply,
}
