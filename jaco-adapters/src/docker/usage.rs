//! What a container has spent and holds, by the engine's own reading of its control group.

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt;
use jaco_core::node::usage::Counters;

use super::engine::{Engine, SHORT};
use super::error::Failure;

/// The counters of a running container now.
pub(super) async fn usage(engine: &Engine, id: &str) -> Result<Counters, Failure> {
    let docker = engine.client().await?.docker;
    // The first reading is enough: the difference of two is taken elsewhere.
    let once = StatsOptionsBuilder::default()
        .stream(false)
        .one_shot(true)
        .build();
    let mut readings = Box::pin(docker.stats(id, Some(once)));
    let reading = async { readings.next().await.transpose() };
    let reading = engine.within(SHORT, reading).await?;
    let counters = reading.as_ref().and_then(counters);
    counters.ok_or_else(|| Failure::Unreadable(format!("container {id} does not run")))
}

/// A container that does not run has no figures. Page cache that the kernel drops when asked is
/// not use; version 1 of the control groups calls it by another name.
fn counters(reading: &ContainerStatsResponse) -> Option<Counters> {
    let cpu = reading.cpu_stats.as_ref()?.cpu_usage.as_ref()?;
    let memory = reading.memory_stats.as_ref()?;
    let parts = memory.stats.as_ref();
    let part = |name: &str| parts.and_then(|parts| parts.get(name)).copied();
    let cache = part("total_inactive_file").or_else(|| part("inactive_file"));
    Some(Counters {
        cpu_micros: cpu.total_usage? / 1_000,
        memory_bytes: memory.usage?.saturating_sub(cache.unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Counters> {
        counters(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let used = Some(Counters {
            cpu_micros: 1_500,
            memory_bytes: 3_800,
        });
        let v1 = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 1500999}}, "memory_stats":
            {"usage": 5000, "stats": {"inactive_file": 1, "total_inactive_file": 1200}}}"#;
        assert_eq!(read(v1), used);
        let v2 = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 1500999}}, "memory_stats":
            {"usage": 5000, "stats": {"inactive_file": 1200}}}"#;
        assert_eq!(read(v2), used);
    }

    #[test]
    fn a_container_that_does_not_run_has_used_nothing_that_counts() {
        let stopped = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}"#;
        assert_eq!(read(stopped), None);
    }
}
