//! What a process does with itself or asks the kernel, and for which neither the standard library nor
//! rustix has anything safe.

use std::io;

/// Closes every descriptor but standard input, output and error.
///
/// Rust opens descriptors so that no child inherits them; whoever started the daemon, or a library
/// inside it, may not have.
///
/// Must be called before anything else is opened: what is open belongs to nobody in this process.
///
/// # Errors
/// If the kernel is older than Linux 5.9.
pub fn close_inherited_descriptors() -> io::Result<()> {
    const ALL_BEYOND_STDERR: libc::c_long = 3;
    let last = libc::c_long::from(u32::MAX);
    let no_flags: libc::c_long = 0;
    // SAFETY: the process has just begun, and nothing in it owns a descriptor beyond these three.
    let result = unsafe { libc::syscall(libc::SYS_close_range, ALL_BEYOND_STDERR, last, no_flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the process ignore what asks the daemon to leave: service managers and terminals send it to
/// every process of a service, and the library is needed until the daemon has drained.
pub fn ignore_requests_to_leave() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Whether something keeps the kernel's clock to the time: NTP, PTP or a host.
///
/// # Errors
/// Where the kernel does not tell, as in sandboxes that forbid adjtimex(2).
pub fn clock_is_kept() -> io::Result<bool> {
    // SAFETY: timex is plain data, for which all zeros is a value: `modes` of zero changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid place for the answer.
    match unsafe { libc::adjtimex(&mut state) } {
        -1 => Err(io::Error::last_os_error()),
        // The call fails with this state for other reasons as well; the flag is the one that says it.
        _ => Ok(state.status & libc::STA_UNSYNC == 0),
    }
}
