//! What holds secrets stays in memory, and nobody looks at it.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Nothing of our memory is readable through a core dump or a debugger of the same user.
pub(crate) fn hide_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot turn core dumps off");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "cannot limit core dumps to nothing");
    }
}

/// Nothing of our memory is written to swap, from now on and whatever is mapped later.
///
/// Pages are locked as they come to be used (`MCL_ONFAULT`): locking all at once would make every
/// thread's stack resident, 2 MiB each.
///
/// # Errors
/// Where not all memory may be locked: that takes an infinite RLIMIT_MEMLOCK, or CAP_IPC_LOCK. Nothing
/// is locked then: with any other limit, mapping more would fail at some time, and with it the thread
/// or allocation that wants it.
pub(crate) fn lock_memory() -> io::Result<()> {
    let has_capability =
        || capabilities(None).is_ok_and(|ours| ours.effective.contains(CapabilitySet::IPC_LOCK));
    match setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }) {
        Err(refused) if !has_capability() => return Err(refused.into()),
        Ok(()) | Err(_) => {}
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}
