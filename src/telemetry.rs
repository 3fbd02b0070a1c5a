//! Logs, by `tracing`: JSON or text, to standard error, which systemd and Kubernetes collect.

use std::str::FromStr;

use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How a line looks.
    pub format: Format,
    /// `info`, or a filter like `info,xksd::hsm=trace`.
    pub level: String,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, with the fields at its top.
    Json,
    /// For people.
    Text,
}

impl Format {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// Neither `json` nor `text`.
#[derive(Debug, thiserror::Error)]
#[error("must be `json` or `text`")]
pub struct FormatError;

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Json, Self::Text].into_iter().find(|format| format.name() == text).ok_or(FormatError)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Json, level: "info".to_owned() }
    }
}

/// Why a filter can't be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a log level (error, warn, info, debug, trace) nor a filter like `info,xksd::hsm=trace`"
)]
pub struct LevelError;

/// Checks a level or filter.
pub fn check_level(level: &str) -> Result<(), LevelError> {
    EnvFilter::try_new(level).map(drop).map_err(|_| LevelError)
}

/// Changes what is logged while the process runs.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Another level or filter, from now on.
    ///
    /// # Errors
    /// If it is none.
    pub fn set(&self, level: &str) -> Result<(), LevelError> {
        let filter = EnvFilter::try_new(level).map_err(|_| LevelError)?;
        // It fails where logging is no more, which is nothing to be told of.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Starts logging, for the whole process and its whole life.
///
/// # Errors
/// If the level is no filter.
pub fn start(settings: &Settings) -> Result<Level, LevelError> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|_| LevelError)?;
    let (filter, handle) = reload::Layer::new(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.format {
        Format::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false))
            .init(),
        Format::Text => registry.with(layer.with_ansi(false)).init(),
    }
    Ok(Level(handle))
}
