//! The server has a core to itself, as it has where it matters: its calls are timed by the clock, and on a core that it
//! shares with a dozen processes their turns would be timed.

#[cfg(target_os = "linux")]
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Which core is the server's. The rest are everybody else's.
#[derive(Debug)]
pub(crate) struct Cores {
    #[cfg(target_os = "linux")]
    server: CpuSet,
}

impl Cores {
    /// Takes one core from this process and all that it starts. Called before there is a second thread. `None` where there is only one,
    /// or the system has no such call.
    #[cfg(target_os = "linux")]
    pub(crate) fn divide() -> Option<Self> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this).expect("its cores");
        let (mut server, mut rest) = (CpuSet::new(), CpuSet::new());
        for core in (0..CpuSet::count()).filter(|core| all.is_set(*core).is_ok_and(|is_set| is_set)) {
            let part = if server == CpuSet::new() { &mut server } else { &mut rest };
            part.set(core).expect("a core");
        }
        (rest != CpuSet::new()).then(|| {
            sched_setaffinity(this, &rest).expect("a part of its cores");
            Self { server }
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn divide() -> Option<Self> {
        None
    }

    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, clippy::unused_self, reason = "there is none")
    )]
    pub(crate) fn give(&self, server: u32) {
        #[cfg(target_os = "linux")]
        sched_setaffinity(Pid::from_raw(server.try_into().expect("a pid")), &self.server)
            .expect("it may be moved");
    }
}
