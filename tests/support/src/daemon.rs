//! The real daemon, as a child process.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::site::Site;

/// Upper bound for anything that should happen soon. A test that waits as long has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that is serving, and the site that it was started from. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    /// Held open: when this process ends, however it does, the daemon must not live on.
    _reaper: Reaper,
    /// Where the daemon serves XKS.
    pub address: SocketAddr,
    /// Where it answers `/livez`, `/readyz` and `/metrics`.
    pub ops: SocketAddr,
    /// What it was started from.
    pub site: Arc<Site>,
}

impl Daemon {
    /// Starts the daemon of a configured site and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready; its log is shown.
    pub fn start(site: impl Into<Arc<Site>>) -> Self {
        Self::start_with(site, &[])
    }

    /// The same, with more environment variables.
    pub fn start_with(site: impl Into<Arc<Site>>, environment: &[(&str, &str)]) -> Self {
        let daemon = Self::launch(site.into(), environment);
        daemon.wait_ready();
        daemon
    }

    /// Starts the daemon and waits until it listens; its token may not be up yet.
    ///
    /// # Panics
    /// Where it does not listen; its log is shown.
    pub fn launch(site: Arc<Site>, environment: &[(&str, &str)]) -> Self {
        let mut command = site.command(&["serve"]);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::launch_by(command, site)
    }

    /// Starts a daemon of this site by a command that becomes it; waits as [`Self::launch`] does.
    ///
    /// # Panics
    /// Where it does not listen; its log is shown.
    pub fn launch_by(mut command: Command, site: Arc<Site>) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("xksd can be started");
        let reaper = Reaper::of(child.id(), &site);
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::<Log>::default();
        let reader = std::thread::spawn({
            let log = log.clone();
            move || {
                // Lossy: a log line that is not UTF-8 is for a test to find, not to hang on.
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    log.push(String::from_utf8_lossy(&line).into_owned());
                }
                log.end();
            }
        });
        let address = log.wait_for("serving XKS", address_in);
        let ops = log.wait_for("serving health checks and metrics", address_in);
        Self { child, log, reader: Some(reader), _reaper: reaper, address, ops, site }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// All that it has logged so far.
    pub fn logged(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of the log that contains `words`, and gives it.
    ///
    /// # Panics
    /// Where there is none within [`PATIENCE`].
    pub fn wait_for_line(&self, words: &str) -> String {
        self.log.wait_for(words, |line| Some(line.to_owned()))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where `kill` cannot be run.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .expect("kill is part of every system");
        assert!(status.success(), "kill -{signal}");
    }

    /// Waits for its end; gives the exit status and all that it has logged.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`], or was ended by a signal.
    pub fn wait_exit(mut self) -> (ExitStatus, String) {
        // Its standard error is closed by its end and by nothing else.
        if !self.log.wait_end() {
            panic!("xksd did not end:\n{}", self.logged());
        }
        let status = self.child.wait().expect("it is our child");
        assert_eq!(status.signal(), None, "ended by a signal:\n{}", self.logged());
        (status, self.logged())
    }

    /// Asks an address of the daemon's for a path, in plain HTTP.
    ///
    /// # Panics
    /// Where there is no answer.
    pub fn ask(&self, address: SocketAddr, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(address).expect("the daemon listens");
        let mut connection = Connection::plain(stream);
        connection.send(
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        let answer = connection.receive();
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let (status, text) = self.ask(self.ops, "/metrics");
        assert_eq!(status, 200);
        text
    }

    /// Waits until a sample of `/metrics`, name and labels as they are written there, has reached
    /// a value.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    pub fn wait_for_metric(&self, sample: &str, least: f64) {
        let reached = || {
            let metrics = self.metrics();
            let value =
                metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
            value.is_some_and(|value: f64| value >= least)
        };
        poll(reached, || format!("{sample} {least}:\n{}", self.metrics()));
    }

    /// Waits for `/readyz` to say yes.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    pub fn wait_ready(&self) {
        poll(
            || self.ask(self.ops, "/readyz").0 == 200,
            || format!("not ready:\n{}", self.logged()),
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is owed to it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Asks again and again until it is so.
///
/// # Panics
/// Where it is not within [`PATIENCE`], with what `otherwise` says.
pub fn poll(mut is_so: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{}", otherwise());
        // Leaves the processor to the one who is waited for.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Finds the address in a log line of either format.
fn address_in(line: &str) -> Option<SocketAddr> {
    let json: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let address = match &json {
        Some(json) => json["address"].as_str()?,
        None => line.split_once("address=\"")?.1.split('"').next()?,
    };
    address.parse().ok()
}

/// The lines of a daemon's log, as they come.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    fn wait_end(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }

    fn wait_for<T>(&self, words: &str, read: impl Fn(&str) -> Option<T>) -> T {
        let find = |state: &State| {
            state.lines.iter().filter(|line| line.contains(words)).find_map(|line| read(line))
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.ended && find(state).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let found = find(&state);
        found.unwrap_or_else(|| panic!("no `{words}` in the log:\n{}", state.lines.join("\n")))
    }
}

/// Ends a daemon and removes its directory once this process is gone, even if it was killed: what
/// lives in a `static` is never dropped.
#[derive(Debug)]
struct Reaper {
    child: Child,
    _alive: Option<ChildStdin>,
}

impl Reaper {
    fn of(pid: u32, site: &Site) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL \"$1\" 2>/dev/null; rm -rf -- \"$2\"", "reaper"])
            .arg(pid.to_string())
            .arg(site.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is part of every system");
        let alive = child.stdin.take();
        Self { child, _alive: alive }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // What it would do is done by now; it must not meet another process with that number.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
