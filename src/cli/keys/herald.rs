//! Has the daemon of this machine read its tokens again after a command that changed something, so
//! that the change counts here at once. Others meet it within their `catalogue_interval`.

use std::io;
use std::os::unix::net::UnixStream;

use super::super::failure::say;
use super::super::status::ask;
use super::scope::Scope;

/// Tells the daemon, where the configuration names a control socket, and says what came of it.
///
/// That a daemon was not told is no failure of the command: what it did is in the tokens.
pub(super) fn tell(scope: &Scope) {
    let Some(socket) = scope.control_socket() else { return };
    // Where none is running there is nobody to be told.
    let nobody = |error: io::Error| error.kind() != io::ErrorKind::PermissionDenied;
    if UnixStream::connect(&socket).is_err_and(nobody) {
        return;
    }
    match ask(&socket, "refresh") {
        Ok(answer) => {
            let read = answer["read"].as_object();
            let unread = read.into_iter().flatten().filter(|(_, is_read)| **is_read != true);
            let unread: Vec<&str> = unread.map(|(token, _)| token.as_str()).collect();
            if unread.is_empty() {
                say("the daemon here has read its tokens: this counts there from now on");
            } else {
                let unread = unread.join("`, `");
                say(&format!("warning: the daemon here could not read token `{unread}` just now"));
            }
        }
        Err(failure) => {
            let why = failure.headline();
            say(&format!(
                "warning: the daemon here was not told, and learns of it by itself: {why}"
            ));
        }
    }
}
