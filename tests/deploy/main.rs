//! What lies below `deploy`, as its users run it, and as the tools that it is for understand it.

mod aws;
mod compose;
mod container;
mod engine;
mod helm;
mod monitoring;
mod packages;
mod promql;
