//! The section `traces`.

use super::reader::{Section, Shape, parsed};
use super::report::Wrong;
use crate::client::connector::HttpVersion;
use crate::client::trust::SYSTEM_BUNDLE;
use crate::client::{Connector, Endpoint, Scheme, Trust};
use crate::traces::sampler::Ratio;
use crate::traces::{self, exporter};

/// Reads `[traces]`: `Some(None)` where there are to be none.
pub(super) fn traces(root: &mut Section<'_>) -> Option<Option<traces::Settings>> {
    let mut section = root.section("traces");
    let report = section.report;
    let endpoint = section.optional("otlp_endpoint", Shape::Text, parsed::<Endpoint>);
    let ca = section.optional("otlp_ca", Shape::Text, |text| {
        let path = report.path(&super::parse::filled(text)?);
        match Trust::from_pem_file(&path) {
            Ok(trust) => Ok(trust),
            Err(error) => Err(Wrong::from(error.to_string())),
        }
    });
    let ratio = section.or("sample_ratio", "1", Shape::Decimal, parsed::<Ratio>);
    let (endpoint, ca, ratio) = (endpoint?, ca?, ratio?);
    let Some(endpoint) = endpoint else { return Some(None) };
    let connector = |endpoint, trust: &Trust| {
        Connector::new(endpoint, trust, None, HttpVersion::Http1, exporter::PATIENCE)
    };
    let collector = match (endpoint.scheme(), ca) {
        (Scheme::Http, None) => Connector::plain(endpoint, HttpVersion::Http1, exporter::PATIENCE),
        (Scheme::Http, Some(_)) => {
            let wrong = Wrong::from("is for https, and otlp_endpoint is plain http");
            section.fault("otlp_ca", None, wrong.hint("leave it out, or make the endpoint https"));
            return None;
        }
        (Scheme::Https, ca) => {
            let public = || Trust::from_pem_file(SYSTEM_BUNDLE.as_ref());
            let made = ca.map_or_else(public, Ok).map_err(Into::into);
            match made.and_then(|trust| connector(endpoint, &trust)) {
                Ok(collector) => collector,
                Err(error) => {
                    let hint = "name the CA of the collector's certificate in traces.otlp_ca";
                    section.fault("otlp_endpoint", None, Wrong::from(error.to_string()).hint(hint));
                    return None;
                }
            }
        }
    };
    Some(Some(traces::Settings { collector, ratio, queue: traces::QUEUE }))
}
