//! The server: from a TCP connection to an answer.
//!
//! [`listener`] accepts connections and guards them against strangers, [`http`] reads requests,
//! [`pipeline`] is the path of a request in one function, [`rescue`] turns every error of the
//! layers below into one of the protocol's, [`record`] writes down what happened.
//! [`ops_listener`] serves health checks and metrics, [`control`] an administrator of this machine.

pub mod activity;
pub mod audited;
pub mod connections;
pub mod control;
pub mod drain;
pub mod http;
pub mod listener;
pub mod ops_listener;
pub mod pipeline;
pub mod proxy_header;
pub mod record;
pub mod rescue;
