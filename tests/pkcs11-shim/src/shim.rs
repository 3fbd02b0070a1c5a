//! The state of the shim in this process: what was asked for, and the real module.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Write, stderr};
use std::sync::OnceLock;

use crate::call::Scripted;
use crate::counts::Counts;
use crate::function::Function;
use crate::module::Module;
use crate::script_file::ScriptFile;
use crate::settings::{self, COUNTS, SCRIPT, SEED, setting};

/// The shim.
pub(crate) struct Shim {
    counts: Option<Counts>,
    script: Option<Scripted>,
    /// Something was asked for and is impossible: a test that would count nothing, or not repeat,
    /// must not run as if all were well.
    impossible: bool,
    module: OnceLock<Module>,
}

/// C_Initialize cannot succeed; the reason is on stderr.
pub(crate) struct Unusable;

impl Shim {
    /// The one of this process, made at the first call of any function.
    ///
    /// A PKCS#11 module has no other place for its state than the process.
    pub(crate) fn of_this_process() -> &'static Self {
        static SHIM: OnceLock<Shim> = OnceLock::new();
        SHIM.get_or_init(Self::from_settings)
    }

    fn from_settings() -> Self {
        let mut impossible = false;
        if let Some(error) = settings::error() {
            impossible = true;
            report(format_args!("{error}"));
        }
        let counts = settings::path(COUNTS).and_then(|path| {
            let counts = Counts::open(&path);
            counts
                .inspect_err(|error| {
                    impossible = true;
                    report(format_args!("{COUNTS}: {error}"));
                })
                .ok()
        });
        let seed = seed().unwrap_or_else(|value| {
            impossible = true;
            report(format_args!("{SEED}: `{value}` is no whole number below 2^64"));
            0
        });
        let script = settings::path(SCRIPT).map(|path| Scripted::new(ScriptFile::new(path, seed)));
        Self { counts, script, impossible, module: OnceLock::new() }
    }

    /// Adds one to the count of this function.
    pub(crate) fn count(&self, function: Function) {
        if let Some(counts) = &self.counts {
            counts.add(function);
        }
    }

    /// The script, if the settings name one; it may have no rules now.
    pub(crate) fn script(&self) -> Option<&Scripted> {
        self.script.as_ref()
    }

    /// Makes sure of everything that C_Initialize needs: what was asked for, the real module.
    pub(crate) fn load(&self) -> Result<(), Unusable> {
        if self.impossible {
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

/// The seed asked for, else one that nobody can foresee.
///
/// # Errors
/// The value, where it is no number.
fn seed() -> Result<u64, String> {
    match setting(SEED) {
        None => Ok(RandomState::new().build_hasher().finish()),
        Some(value) => {
            let value = value.to_string_lossy();
            value.parse().map_err(|_| value.into_owned())
        }
    }
}
