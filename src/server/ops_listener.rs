//! Health checks and metrics, on an address of their own.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tower_service::Service;

use super::drain::{Draining, Phase};
use super::listener::{Connection, Serve};
use super::serving::Serving;
use crate::metrics::Metrics;
use crate::operations;
use crate::wire::health::HealthStatus;

/// What an operations address answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// `/livez`, `/readyz` and `/metrics`.
    All,
    /// `/livez` and `/readyz` only, for a load balancer.
    Health,
    /// `/metrics` only.
    Metrics,
}

/// The service of an operations listener.
#[derive(Debug, Clone)]
pub struct Ops {
    router: Router,
}

#[derive(Debug, Clone)]
struct Shown {
    serving: Arc<Serving>,
    metrics: Arc<Metrics>,
    draining: Draining,
}

impl Ops {
    /// Answers what this reach allows.
    pub fn new(
        reach: Reach,
        serving: Arc<Serving>,
        metrics: Arc<Metrics>,
        draining: Draining,
    ) -> Self {
        let mut router = Router::new();
        if reach != Reach::Metrics {
            router = router.route("/livez", get(live)).route("/readyz", get(ready));
        }
        if reach != Reach::Health {
            router = router.route("/metrics", get(metrics_text));
        }
        let router = router
            .fallback(async || (StatusCode::NOT_FOUND, "nothing is here\n"))
            .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "GET only\n"))
            .with_state(Shown { serving, metrics, draining });
        Self { router }
    }
}

impl Serve for Ops {
    async fn serve(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let _serving = connection.activity.begin();
        self.router.clone().call(request).await
    }
}

/// The process runs and its runtime turns.
async fn live() -> &'static str {
    "ok\n"
}

/// P-9: whether this instance should receive traffic. Not while it leaves, and not while there is
/// no key store of which a token serves.
async fn ready(State(shown): State<Shown>) -> impl IntoResponse {
    if shown.draining.phase() != Phase::Serving {
        return (StatusCode::SERVICE_UNAVAILABLE, "leaving\n");
    }
    if shown.serving.current().groups.values().any(|group| group.serves()) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no key store can be served: no token is up\n")
    }
}

async fn metrics_text(State(shown): State<Shown>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    // Found out now: a token that nobody probes any more says so by nothing but the time.
    for (keystore, group) in &shown.serving.current().groups {
        let statuses: Vec<HealthStatus> = operations::statuses(group).collect();
        for status in HealthStatus::ALL {
            let count = statuses.iter().filter(|found| **found == status).count();
            shown.metrics.external_key_managers(keystore, status, count);
        }
    }
    ([(header::CONTENT_TYPE, kind)], shown.metrics.render())
}
