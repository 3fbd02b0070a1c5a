//! `xksd completions` and `xksd man`: what a package installs beside the program, made from the
//! definition of the command line itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::failure::print;
use super::{Cli, Exit, Failure};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell that reads them
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where the pages go: one for xksd and one for each subcommand. It is made if it is not there
    directory: PathBuf,
}

impl Completions {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown(), "xksd", &mut script);
        // Not to stdout at once: clap_complete panics where that is closed.
        print(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS)
    }
}

impl Man {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let mut xksd = shown().disable_help_subcommand(true);
        // Subcommands learn from it that they are called `xksd-keys-list`.
        xksd.build();
        let written =
            fs::create_dir_all(&self.directory).and_then(|()| write_pages(xksd, &self.directory));
        let failed = |error| {
            let directory = self.directory.display();
            let failure = format!("cannot write manual pages to {directory}: {error}");
            Failure::new(Exit::Io, failure)
        };
        written.map(|()| ExitCode::SUCCESS).map_err(failed)
    }
}

fn write_pages(command: Command, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands() {
        write_pages(subcommand.clone(), directory)?;
    }
    let page = clap_mangen::Man::new(command)
        .source(concat!("xksd ", env!("CARGO_PKG_VERSION")))
        .manual("External key store proxy");
    page.generate_to(directory).map(drop)
}

/// The command line without what is hidden: clap_complete offers hidden subcommands, too.
fn shown() -> Command {
    let whole = Cli::command();
    let mut shown = Command::new("xksd").version(env!("CARGO_PKG_VERSION"));
    shown = shown.about(whole.get_about().cloned().unwrap_or_default());
    shown = shown.after_help(whole.get_after_help().cloned().unwrap_or_default());
    let subcommands = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    shown.subcommands(subcommands.cloned()).subcommand_required(true)
}
