//! One clock for all processes of the machine, and the server's clock in terms of it.

use super::machine;
use super::server::Connection;

/// The machine's monotonic clock in microseconds.
pub(crate) fn monotonic_us() -> i64 {
    i64::try_from(machine::monotonic_us()).expect("this century")
}

/// What the monotonic clock shows when the server's shows this, with how far that may be off, in microseconds: half of
/// the quickest of some round trips.
pub(crate) fn at_server_time(server: &mut Connection, us: i64) -> (i64, i64) {
    let asked = (0..10).map(|_| {
        let before = monotonic_us();
        let time = server.command(&["TIME"]);
        let after = monotonic_us();
        let time = time.list()[0].int() * 1_000_000 + time.list()[1].int();
        (after - before, (before + after) / 2 - time)
    });
    let (round_trip, offset) = asked.min().expect("asked");
    (us + offset, (round_trip + 1) / 2)
}
