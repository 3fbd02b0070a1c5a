//! `xksd keys import-parameters` and `xksd keys import`

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::failure::{print, say};
use super::birth::{KeyUsage, refused, tell, usage, would_bear};
use super::scope::{Scope, Unnamed, conclude};
use super::{Exit, Failure, words};
use crate::hsm::backend::Leaves;
use crate::hsm::transport::{MATERIAL_LEN, WrappingAlgorithm};
use crate::lifecycle::{Error, Kind, Office, Order, Refusal, Source, bear, door};
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;

/// More than any ciphertext of an AES-256 key has, in bytes.
const WRAPPED_MAX: u64 = 16 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// External key id
    id: ExternalKeyId,
    #[command(flatten)]
    pub(super) scope: Scope,
    #[command(flatten)]
    material: Material,
    /// How --wrapped is encrypted: RSA_AES_KEY_WRAP_SHA_256, RSA_AES_KEY_WRAP_SHA_1,
    /// RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1, as KMS names them
    #[arg(long, value_name = "NAME", conflicts_with = "material")]
    algorithm: Option<WrappingAlgorithm>,
    /// As the next version of a key that is in use, for the same usage
    #[arg(long, conflicts_with = "usage")]
    next_version: bool,
    /// What it is for: encrypt,decrypt or one of them or none
    #[arg(long, default_value = "encrypt,decrypt")]
    usage: KeyUsage,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print the new key as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Material {
    /// File with the 32 bytes of the key, `-` for standard input
    #[arg(long, value_name = "FILE")]
    material: Option<PathBuf>,
    /// File with the key encrypted for the token, by `import-parameters`; for several tokens
    /// TOKEN=FILE for each
    #[arg(long, value_name = "[TOKEN=]FILE", requires = "algorithm")]
    wrapped: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportParameters {
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Directory for the public keys, one file TOKEN.pem for each token
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// Print them as JSON as well
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let meant = self.scope.meant(Unnamed::Group)?;
        // Before anybody logs in.
        let material = match &self.material.material {
            Some(path) => Some(read_material(path)?),
            None => None,
        };
        let mut office = meant.open();
        let source = match (material, self.algorithm) {
            (Some(material), _) => Source::Plain(material),
            (None, Some(algorithm)) => Source::Wrapped(algorithm, self.wrapped(&office)?),
            (None, None) => {
                let failure = "--wrapped wants --algorithm, which says how it is encrypted";
                return Err(Failure::new(Exit::Usage, failure));
            }
        };
        let kind = if self.next_version { Kind::Rotate } else { Kind::Create(self.usage.0) };
        let order = Order { kind, source, leaves: Leaves::Never, patience: Duration::ZERO };
        if self.dry_run {
            return would_bear(&mut office, &self.id, &order, self.json);
        }
        let birth = match bear(&mut office, &self.id, &order) {
            Ok(birth) => birth,
            Err(error) => return self.refused(&office, error),
        };
        if self.json {
            return tell(&office, &self.id, &birth);
        }
        let (usage, place) = (words::usage_words(usage(birth.usage)), words::place(&office));
        let (id, version) = (&self.id, birth.state.version);
        say(&format!("imported version {version} of `{id}` into {place} (usage {usage})"));
        conclude(&office, &self.id, Ok(()))
    }

    fn refused(&self, office: &Office, error: Error) -> Result<(), Failure> {
        let exists = matches!(error, Error::Refused(Refusal::Exists));
        let other = matches!(error, Error::Refused(Refusal::NotUnwrapped(..)));
        let length =
            matches!(error, Error::Refused(Refusal::Attribute { attribute: "length", .. }));
        refused(office, &self.id, error).map_err(|failure| {
            if exists {
                failure.hint("--next-version imports it as the next version of this key")
            } else if other {
                failure
                    .hint("it has to be encrypted with the key that `import-parameters` gives now")
                    .hint("--algorithm must be the one that it was encrypted with")
            } else if length {
                failure
                    .hint("an AES-256 key has 32 bytes")
                    .hint("a token that tells no length takes RSA_AES_KEY_WRAP_*, which shows it")
            } else {
                failure
            }
        })
    }

    /// One ciphertext for each token, in their order.
    fn wrapped(&self, office: &Office) -> Result<Vec<Vec<u8>>, Failure> {
        let names = words::tokens(office);
        let mut files: Vec<Option<Vec<u8>>> = vec![None; names.len()];
        for argument in &self.material.wrapped {
            let named = argument.split_once('=').and_then(|(name, path)| {
                names.iter().position(|known| *known == name).map(|token| (token, path))
            });
            let (token, path) = match named {
                Some(named) => named,
                None if names.len() == 1 => (0, argument.as_str()),
                None => {
                    let failure = format!("`{argument}` does not say for which token it is");
                    let hint = "a file for each token: --wrapped TOKEN=FILE --wrapped TOKEN=FILE";
                    let known = format!("tokens: {}", names.join(", "));
                    return Err(Failure::new(Exit::Usage, failure).hint(hint).hint(known));
                }
            };
            if files[token].replace(read_wrapped(Path::new(path))?).is_some() {
                let failure = format!("token `{}` is given two files", names[token]);
                return Err(Failure::new(Exit::Usage, failure));
            }
        }
        let all: Option<Vec<_>> = files.iter().cloned().collect();
        all.ok_or_else(|| {
            let lacking = names.iter().zip(&files).filter(|(_, file)| file.is_none());
            let lacking: Vec<_> = lacking.map(|(name, _)| *name).collect();
            let failure = format!("no --wrapped for token `{}`", lacking.join("`, `"));
            let hint = "the key is encrypted for each token's own public key";
            Failure::new(Exit::Usage, failure).hint(hint)
        })
    }
}

impl ImportParameters {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::Group)?;
        if let Some(failed) = office.failures().first() {
            return Err(super::scope::token_failure(failed.fault, &failed.token));
        }
        let mut written = Vec::new();
        for token in 0..office.len() {
            let door = match door(&mut office, token, Leaves::Never) {
                Ok(door) => door,
                Err(Error::Refused(refusal)) => {
                    return Err(Failure::new(Exit::CannotCreate, refusal));
                }
                Err(Error::Token { token, fault }) => {
                    return Err(super::scope::token_failure(fault, &token));
                }
                Err(error) => return Err(Failure::new(Exit::CannotCreate, error)),
            };
            let public = &door.pair.public;
            let name = office.name(token).clone();
            let path = self.out.join(format!("{name}.pem"));
            std::fs::write(&path, public.pem()).map_err(|error| {
                Failure::new(Exit::Io, format!("cannot write `{}`: {error}", path.display()))
            })?;
            let algorithms: Vec<_> = WrappingAlgorithm::ALL
                .into_iter()
                .filter(|algorithm| algorithm.hash() == door.hash)
                .map(WrappingAlgorithm::as_str)
                .collect();
            written.push(json!({
                "token": name.as_str(),
                "public_key": path.display().to_string(),
                "sha256": public.fingerprint(),
                "algorithms": algorithms,
            }));
        }
        if self.json {
            return print(&format!("{:#}\n", Value::Array(written)));
        }
        for of_token in written {
            let word = |member: &str| of_token[member].as_str().unwrap_or_default().to_owned();
            let algorithms = of_token["algorithms"].as_array().into_iter().flatten();
            let algorithms: Vec<_> = algorithms.filter_map(Value::as_str).collect();
            say(&format!("token `{}`: wrote `{}`", word("token"), word("public_key")));
            say(&format!("  SHA-256 of the key: {}", word("sha256")));
            say(&format!("  --algorithm {}", algorithms.join(" or ")));
        }
        Ok(())
    }
}

/// Reads exactly the key, into a buffer that is zeroized and never moves.
fn read_material(path: &Path) -> Result<Plaintext, Failure> {
    let shown =
        if is_stdin(path) { "standard input".to_owned() } else { format!("`{}`", path.display()) };
    let failed = |error: io::Error| Failure::new(Exit::Io, format!("cannot read {shown}: {error}"));
    // One byte more, to see that there is none.
    let mut buffer = Zeroizing::new([0_u8; MATERIAL_LEN + 1]);
    let length = if is_stdin(path) {
        // Not through std's, which keeps a buffer of its own.
        let stdin = rustix::stdio::stdin();
        fill(|rest| Ok(rustix::io::read(stdin, rest)?), &mut buffer[..]).map_err(failed)?
    } else {
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            say(&format!("warning: group or others may read {shown}, mode {:03o}", mode & 0o777));
        }
        fill(|rest| file.read(rest), &mut buffer[..]).map_err(failed)?
    };
    if length != MATERIAL_LEN {
        let found = if length > MATERIAL_LEN { "more".to_owned() } else { length.to_string() };
        let failure = format!("{shown} has {found} bytes, and an AES-256 key has {MATERIAL_LEN}");
        return Err(Failure::new(Exit::Usage, failure).hint(
            "the bytes themselves, neither hexadecimal nor Base64, and no line feed after them",
        ));
    }
    Ok(Plaintext::new(buffer[..MATERIAL_LEN].to_vec()))
}

/// Reads until the buffer is full, or nothing is left.
fn fill(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read_wrapped(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Exit::Io, format!("cannot read `{}`: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(WRAPPED_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
