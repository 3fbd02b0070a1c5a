//! `xksd hsm-worker`: the process of a token's library. The daemon starts it; people do not.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{Exit, Failure};
use crate::daemon;
use crate::hsm::pkcs11::{close_inherited_descriptors, exit_now, ignore_requests_to_leave};
use crate::hsm::process::host;
use crate::names::TokenName;
use crate::telemetry::{self, Format};

/// Everything here is seen by everybody; what matters comes over standard input.
#[derive(Debug, Args)]
pub(super) struct HsmWorker {
    /// Whose library it is, for those who look at the list of processes
    #[arg(long)]
    token: TokenName,
    /// Form of log lines
    #[arg(long)]
    log_format: Format,
    /// Level of the log, or a filter
    #[arg(long)]
    log_level: String,
}

impl HsmWorker {
    /// Does not return after the library was used: it does not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        // First: nothing else may be open yet.
        let closed = close_inherited_descriptors();
        ignore_requests_to_leave();
        // Besides the end of the socket: that is not noticed by a process that was stopped.
        let bound = set_parent_process_death_signal(Some(Signal::KILL));
        daemon::hide_memory();
        let locked = daemon::lock_memory();
        let settings =
            telemetry::Settings { format: self.log_format, level: self.log_level.clone() };
        telemetry::start(&settings).map_err(|error| Failure::new(Exit::Usage, error))?;
        let token = self.token.as_str();
        if let Err(error) = closed {
            tracing::warn!(token, %error, "cannot close descriptors that were inherited");
        }
        if let Err(error) = bound {
            tracing::warn!(token, %error, "may outlive the daemon while it is stopped");
        }
        if let Err(error) = locked {
            // The daemon has said it of itself, louder.
            tracing::debug!(token, %error, "cannot lock memory");
        }
        let control = take_stdin().map_err(|error| Failure::new(Exit::OsError, error))?;
        let status = match host(&control) {
            Ok(()) => 0,
            Err(error) => {
                let failure = Failure::new(Exit::Usage, format!("no daemon is served: {error}"))
                    .hint("the daemon starts this command by itself");
                failure.report();
                failure.code()
            }
        };
        exit_now(status.into())
    }
}

/// The control socket, where helpers of the library's do not inherit it.
fn take_stdin() -> io::Result<UnixStream> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(control.into())
}
