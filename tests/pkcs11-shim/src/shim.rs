//! The state of the shim in this process: what the environment asked for, and the real module.

use std::env;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::counts::Counts;
use crate::function::Function;
use crate::module::Module;
use crate::script::Action;
use crate::script_file::ScriptFile;

/// Names the file of counters.
const COUNTS: &str = "PKCS11_SHIM_COUNTS";
/// Names the script.
const SCRIPT: &str = "PKCS11_SHIM_SCRIPT";

/// The shim.
pub(crate) struct Shim {
    counts: Wanted<Counts>,
    script: Option<ScriptFile>,
    module: OnceLock<Module>,
}

/// Something that the environment may ask for.
enum Wanted<T> {
    No,
    Here(T),
    /// Asked for and impossible: a test that would count nothing must not run as if all were well.
    Failed,
}

/// C_Initialize cannot succeed; the reason is on stderr.
pub(crate) struct Unusable;

impl Shim {
    /// The one of this process, made at the first call of any function.
    ///
    /// A PKCS#11 module has no other place for its state than the process.
    pub(crate) fn of_this_process() -> &'static Self {
        static SHIM: OnceLock<Shim> = OnceLock::new();
        SHIM.get_or_init(Self::from_environment)
    }

    fn from_environment() -> Self {
        let counts = match path_in(COUNTS).map(|path| Counts::open(&path)) {
            None => Wanted::No,
            Some(Ok(counts)) => Wanted::Here(counts),
            Some(Err(error)) => {
                report(format_args!("{COUNTS}: {error}"));
                Wanted::Failed
            }
        };
        Self { counts, script: path_in(SCRIPT).map(ScriptFile::new), module: OnceLock::new() }
    }

    /// Adds one to the count of this function.
    pub(crate) fn count(&self, function: Function) {
        if let Wanted::Here(counts) = &self.counts {
            counts.add(function);
        }
    }

    /// Does what the script says about this function before it is called.
    pub(crate) fn obey_script(&self, function: Function) {
        let Some(file) = &self.script else { return };
        for action in file.current().actions(function) {
            match action {
                Action::Delay(time) => std::thread::sleep(*time),
            }
        }
    }

    /// Makes sure of everything that C_Initialize needs: the counts asked for, the real module.
    pub(crate) fn load(&self) -> Result<(), Unusable> {
        if matches!(self.counts, Wanted::Failed) {
            return Err(Unusable);
        }
        if self.module.get().is_none() {
            match Module::load() {
                // Of two threads that load it at once, one comes too late; the list is the same.
                Ok(module) => drop(self.module.set(module)),
                Err(error) => {
                    report(format_args!("{error}"));
                    return Err(Unusable);
                }
            }
        }
        Ok(())
    }

    /// The real module, once [`Shim::load`] has loaded it.
    pub(crate) fn module(&self) -> Option<&Module> {
        self.module.get()
    }
}

/// Writes one line on stderr. A process without stderr is served all the same.
pub(crate) fn report(message: std::fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "pkcs11-shim: {message}");
}

fn path_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
