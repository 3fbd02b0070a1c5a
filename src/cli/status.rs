//! `xksd status`: what a running daemon says of itself, over its control socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::failure::print;
use super::startup::configuration;
use super::{ConfigFile, Exit, Failure};

/// Longer than the daemon takes for anything.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    config: ConfigFile,
    /// The daemon's control socket, if it is not to be looked up in the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Have the keys of all tokens read now: what was changed in the HSM counts from then on
    #[arg(long, conflicts_with = "watch")]
    refresh: bool,
    /// Ask again every second, until interrupted
    #[arg(long)]
    watch: bool,
    /// Print the daemon's answer as JSON, one line for each
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let socket = control_socket(&self.config, self.socket.as_deref())?;
        if self.refresh {
            return self.refresh(&socket);
        }
        loop {
            let status = ask(&socket, "status")?;
            let text = if self.json { format!("{status}\n") } else { table(&status) };
            // The screen is cleared where there is one.
            let clear = if self.watch && !self.json { "\x1b[H\x1b[2J" } else { "" };
            print(&format!("{clear}{text}"))?;
            if !self.watch {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn refresh(&self, socket: &Path) -> Result<ExitCode, Failure> {
        let answer = ask(socket, "refresh")?;
        let read = answer["read"].as_object().cloned().unwrap_or_default();
        if self.json {
            print(&format!("{answer}\n"))?;
        } else {
            for (token, is_read) in &read {
                let outcome = if *is_read == true { "read" } else { "could not be read" };
                print(&format!("{token}: {outcome}\n"))?;
            }
        }
        if read.values().all(|is_read| *is_read == true) {
            return Ok(ExitCode::SUCCESS);
        }
        let unread: Vec<&str> =
            read.iter().filter(|(_, is)| **is != true).map(|(name, _)| name.as_str()).collect();
        let failure = format!("not read: {}", unread.join(", "));
        let hint =
            "until it can be read, the daemon serves these tokens' keys as it last knew them";
        Err(Failure::new(Exit::Unavailable, failure).hint(hint))
    }
}

/// Where the daemon answers: here, or where the configuration says.
pub(super) fn control_socket(
    config: &ConfigFile,
    socket: Option<&Path>,
) -> Result<PathBuf, Failure> {
    if let Some(socket) = socket {
        return Ok(socket.to_owned());
    }
    configuration(config)?.ops.control_socket.ok_or_else(|| {
        let failure = format!("`{}` sets no ops.control_socket", config.path.display());
        Failure::new(Exit::Config, failure)
            .hint("control_socket = \"/run/xksd/control.sock\" in [ops], and start xksd anew")
    })
}

/// Asks the daemon.
pub(super) fn ask(socket: &Path, word: &str) -> Result<Value, Failure> {
    ask_for(socket, word, PATIENCE)
}

/// Asks the daemon for what may take so long.
pub(super) fn ask_for(socket: &Path, word: &str, patience: Duration) -> Result<Value, Failure> {
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(format!("{word}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let shown = socket.display();
    let answer = exchange().map_err(|error: std::io::Error| {
        Failure::new(Exit::Unavailable, format!("no xksd answers at `{shown}`: {error}"))
            .hint("is it running, with this ops.control_socket, and is this its user or root?")
    })?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|_| Failure::new(Exit::Software, format!("`{shown}` answers no JSON")))?;
    if !answer["refused"].is_null() {
        let failure = format!("xksd at `{shown}` refuses this user");
        return Err(Failure::new(Exit::NoPermission, failure).hint("it answers its own and root"));
    }
    match answer["error"].as_str() {
        Some(error) => Err(Failure::new(Exit::Software, format!("xksd at `{shown}`: {error}"))
            .hint("is the daemon of another release than this command?")),
        None => Ok(answer),
    }
}

/// For people.
fn table(status: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let seconds = |value: &Value| match value.as_f64() {
        Some(seconds) => format!("{seconds:.1} s"),
        None => "never".to_owned(),
    };
    let mut out = format!(
        "xksd {}, process {}: {} for {} s, connections: {}\n",
        text(&status["version"]),
        status["pid"],
        text(&status["phase"]),
        status["uptime_seconds"],
        status["connections"],
    );
    out += &reloads(&status["reload"]);
    for keystore in status["keystores"].as_array().into_iter().flatten() {
        let tokens: Vec<String> =
            keystore["tokens"].as_array().into_iter().flatten().map(text).collect();
        let is = |value: &Value| *value == true;
        let frozen = &keystore["frozen"];
        let state = if !is(&keystore["enabled"]) {
            "disabled"
        } else if is(&frozen["by_marker"]) {
            "FROZEN by a marker in the HSM"
        } else if is(&frozen["by_configuration"]) {
            "FROZEN by its configuration"
        } else if is(&keystore["served"]) {
            "served"
        } else {
            "NOT SERVED"
        };
        out += &format!(
            "\nkey store {} (prefix \"{}\"): {state}, tokens {}",
            text(&keystore["name"]),
            text(&keystore["prefix"]),
            tokens.join(", "),
        );
    }
    out.push('\n');
    for token in status["tokens"].as_array().into_iter().flatten() {
        out += &format!(
            "\ntoken {}: {}, sessions {} of {}, waiting {}, keys {}, probed {} ago, keys read {} ago\n",
            text(&token["name"]),
            text(&token["state"]).to_uppercase(),
            token["sessions"],
            token["sessions_wanted"],
            token["waiting"],
            text(&token["keys"]),
            seconds(&token["proved_seconds_ago"]),
            seconds(&token["keys_read_seconds_ago"]),
        );
        if let Some(fault) = token["fault"].as_str() {
            out += &format!("  last error: {fault}\n");
        }
        if token["versions_lacking"].as_u64().is_some_and(|lacking| lacking > 0) {
            let lacking = &token["versions_lacking"];
            out += &format!("  lacks {lacking} key versions that other tokens have\n");
        }
    }
    out
}

/// What is to be known of the configuration in force.
fn reloads(reload: &Value) -> String {
    let mut out = String::new();
    let last = &reload["last"];
    if last["outcome"] == "refused" {
        out += "the configuration that was read last is REFUSED, an older one serves:\n";
        for fault in last["faults"].as_array().into_iter().flatten() {
            out += &format!("  {}\n", fault["problem"].as_str().unwrap_or_default());
        }
    }
    let settings = reload["restart_pending"].as_array().into_iter().flatten();
    let settings: Vec<&str> = settings.filter_map(Value::as_str).collect();
    if !settings.is_empty() {
        out += &format!("RESTART PENDING for {}\n", settings.join(", "));
    }
    out
}
