//! What lies below `deploy`, as its users run it.

mod helm;
//! What is below `deploy/`: it is what the tools that it is for understand, and fits this xksd.

mod aws;
mod monitoring;
mod promql;
