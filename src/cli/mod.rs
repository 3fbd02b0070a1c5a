//! The command line: one file per group of verbs.
//!
//! stdout is for data, stderr for talk. A failure is `error:` lines, each with its `hint:` lines,
//! and an exit code of [`Exit`].

mod access;
mod audit;
mod bench;
mod config;
mod conformance;
mod credentials;
mod doctor;
mod failure;
mod hsm_worker;
mod keys;
mod policy;
mod probe;
mod reload;
mod serve;
mod shell;
mod startup;
mod state;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use failure::{Exit, Failure};

/// External key store (XKS) proxy between AWS KMS and your own PKCS#11 HSM.
#[derive(Debug, Parser)]
#[command(name = "xksd", version, subcommand_required = true, arg_required_else_help = false)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 1 doctor found a fault, conformance a broken rule, bench bad answers, probe a no, keys verify or audit verify a difference, or policy something unexpected, 64 wrong command line, 69 HSM cannot be reached, 70 internal \
    error, 71 refused by the operating system, 73 cannot be created or changed, 74 a file cannot be read or output not be written, \
    77 PIN refused, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve AWS KMS until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Check a configuration, or print one to start from
    #[command(subcommand)]
    Config(config::Config),
    /// Make, list, rotate, disable and destroy the keys of HSM tokens
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Verify and search the audit log, and make the key that signs it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Make, list, revoke and export the credentials that KMS signs with
    #[command(subcommand)]
    Credentials(credentials::Credentials),
    /// Check, test and explain authorization policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Look for what will go wrong before KMS does: configuration, certificate, HSM, keys
    Doctor(doctor::Doctor),
    /// Examine a proxy, ours or another: the whole protocol, rule by rule
    Conformance(Box<conformance::Conformance>),
    /// Measure how fast a proxy answers, ours or another
    Bench(Box<bench::Bench>),
    /// Ask a running daemon how it is, over its control socket
    Status(status::Status),
    /// Ask a running daemon whether it lives or is ready, over its operations address
    Probe(probe::Probe),
    /// Have a running daemon read its configuration anew, over its control socket
    Reload(reload::Reload),
    /// Set up what a daemon has to remember
    #[command(subcommand)]
    State(state::State),
    /// Print the completions of this command line for a shell
    Completions(shell::Completions),
    /// Write the manual pages of this command line
    Man(shell::Man),
    /// The process of a token's PKCS#11 library; the daemon starts it
    #[command(hide = true)]
    HsmWorker(hsm_worker::HsmWorker),
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long = "config", value_name = "FILE", env = "XKSD_CONFIG")]
    #[arg(default_value = "/etc/xksd/xksd.toml")]
    path: PathBuf,
}

/// The definition of the command line: what is parsed, and what help is written from.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        // `--help`, `--version` and lists are data, whatever clap writes before texts that are not its own.
        Err(error) if !error.use_stderr() => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            failure::print(text).map(|()| ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::usage(&error)),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Config(config) => config.run(),
        Command::Keys(keys) => keys.run(),
        Command::Audit(audit) => audit.run(),
        Command::Credentials(credentials) => credentials.run(),
        Command::Policy(policy) => policy.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Conformance(conformance) => conformance.run(),
        Command::Bench(bench) => bench.run(),
        Command::Status(status) => status.run(),
        Command::Probe(probe) => probe.run(),
        Command::Reload(reload) => reload.run(),
        Command::State(state) => state.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::HsmWorker(worker) => worker.run(),
    }
}
