//! The answer of GetHealthStatus (P-60).

use std::num::NonZeroU32;

use super::json::JsonWriter;
use super::response::ResponseBody;

/// How an HSM is, worst last (P-60).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HealthStatus {
    /// Healthy.
    Active,
    /// Unhealthy, but serving.
    Degraded,
    /// Not serving.
    Unavailable,
}

impl HealthStatus {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::Active, Self::Degraded, Self::Unavailable];

    /// The word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Degraded => "DEGRADED",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One HSM behind the proxy, as KMS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ekm {
    /// Tells it from the others of the fleet.
    pub id: String,
    /// Product, hardware and firmware.
    pub model: String,
    /// How it is.
    pub health_status: HealthStatus,
}

/// One to ten HSMs, by construction (P-60).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkmFleet(Vec<Ekm>);

/// Most HSMs that an answer may name (P-60).
const MAX_EKMS: usize = 10;

impl EkmFleet {
    /// A fleet of at least one HSM. Of more than ten, the ten worst are named (P-63).
    ///
    /// The order is kept up to ten; over that the worst come first.
    pub fn new(first: Ekm, others: impl IntoIterator<Item = Ekm>) -> Self {
        let mut ekms = vec![first];
        ekms.extend(others);
        if ekms.len() > MAX_EKMS {
            ekms.sort_by_key(|ekm| std::cmp::Reverse(ekm.health_status));
            ekms.truncate(MAX_EKMS);
        }
        Self(ekms)
    }

    /// The HSMs that the answer will name.
    pub fn as_slice(&self) -> &[Ekm] {
        &self.0
    }
}

/// Answer of GetHealthStatus (P-60).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthResponse {
    /// How many proxies serve this endpoint.
    pub fleet_size: NonZeroU32,
    /// Who made the proxy.
    pub proxy_vendor: String,
    /// Its name and version.
    pub proxy_model: String,
    /// Who made the HSMs.
    pub ekm_vendor: String,
    /// The HSMs.
    pub ekm_fleet: EkmFleet,
}

impl HealthResponse {
    /// The JSON.
    pub fn to_body(&self) -> ResponseBody {
        let mut json = JsonWriter::with_capacity(1024);
        json.raw("{\"xksProxyFleetSize\":").raw(&self.fleet_size.to_string());
        json.raw(",\"xksProxyVendor\":").text(&self.proxy_vendor);
        json.raw(",\"xksProxyModel\":").text(&self.proxy_model);
        json.raw(",\"ekmVendor\":").text(&self.ekm_vendor);
        json.raw(",\"ekmFleetDetails\":[");
        for (i, ekm) in self.ekm_fleet.0.iter().enumerate() {
            json.raw(if i == 0 { "" } else { "," });
            json.raw("{\"id\":").text(&ekm.id);
            json.raw(",\"model\":").text(&ekm.model);
            json.raw(",\"healthStatus\":").text(ekm.health_status.as_str()).raw("}");
        }
        json.raw("]}");
        json.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ekm(id: usize, health_status: HealthStatus) -> Ekm {
        Ekm { id: id.to_string(), model: "Model \"1\"\n".to_owned(), health_status }
    }

    #[test]
    fn health_answers_p_60() {
        let response = HealthResponse {
            fleet_size: NonZeroU32::new(2).unwrap(),
            proxy_vendor: "V".to_owned(),
            proxy_model: "xksd 0.1.0".to_owned(),
            ekm_vendor: "SoftHSM".to_owned(),
            ekm_fleet: EkmFleet::new(
                ekm(1, HealthStatus::Degraded),
                [ekm(2, HealthStatus::Active), ekm(3, HealthStatus::Unavailable)],
            ),
        };
        let expected = serde_json::json!({
            "xksProxyFleetSize": 2,
            "xksProxyVendor": "V",
            "xksProxyModel": "xksd 0.1.0",
            "ekmVendor": "SoftHSM",
            "ekmFleetDetails": [
                {"id": "1", "model": "Model \"1\"\n", "healthStatus": "DEGRADED"},
                {"id": "2", "model": "Model \"1\"\n", "healthStatus": "ACTIVE"},
                {"id": "3", "model": "Model \"1\"\n", "healthStatus": "UNAVAILABLE"},
            ],
        });
        let body = response.to_body();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(body.as_ref()).unwrap(), expected);
    }

    #[test]
    fn of_more_than_ten_the_ten_worst_are_named_p_63() {
        let status = |id| match id {
            11 => HealthStatus::Unavailable,
            5 => HealthStatus::Degraded,
            _ => HealthStatus::Active,
        };
        let fleet =
            |size| EkmFleet::new(ekm(0, status(0)), (1..size).map(|id| ekm(id, status(id))));
        let ids = |fleet: &EkmFleet| -> Vec<usize> {
            fleet.as_slice().iter().map(|ekm| ekm.id.parse().unwrap()).collect()
        };
        assert_eq!(ids(&fleet(1)), [0]);
        assert_eq!(ids(&fleet(10)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(ids(&fleet(12)), [11, 5, 0, 1, 2, 3, 4, 6, 7, 8]);
    }
}
