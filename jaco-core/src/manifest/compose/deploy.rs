//! `deploy`: how many, where, with what resources, and how updates roll.

use std::time::Duration;

use super::parts;
use crate::manifest::jaco::replicas;
use crate::manifest::read::{
    View, bytes, choice, count, duration, integer, list, string, thousandths,
};
use crate::manifest::spec::{
    Attribute, Constraint, FailureAction, GpuRequest, RestartPolicy, UpdateConfig, UpdateOrder,
};
use crate::manifest::yaml::At;

/// A service's `deploy`, or what its absence means.
#[derive(Default)]
pub(crate) struct Deploy {
    pub(crate) mode: Mode,
    pub(crate) replicas: Option<(u32, At)>,
    pub(crate) limits: Amounts,
    pub(crate) reservations: Amounts,
    /// Accelerators of `resources.reservations.devices`.
    pub(crate) devices: Vec<GpuRequest>,
    pub(crate) update: UpdateConfig,
    pub(crate) rollback: Option<UpdateConfig>,
    pub(crate) restart: RestartPolicy,
    pub(crate) constraints: Vec<Constraint>,
    pub(crate) max_replicas_per_node: Option<u32>,
}

/// `deploy.mode`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl Mode {
    pub(crate) fn is_global(self) -> bool {
        matches!(self, Mode::Global | Mode::GlobalJob)
    }

    pub(crate) fn is_job(self) -> bool {
        matches!(self, Mode::ReplicatedJob | Mode::GlobalJob)
    }
}

/// One side of `deploy.resources`.
#[derive(Default)]
pub(crate) struct Amounts {
    pub(crate) cpu_millis: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) pids: Option<i64>,
}

const MODES: &[(&str, Mode)] = &[
    ("replicated", Mode::Replicated),
    ("global", Mode::Global),
    ("replicated-job", Mode::ReplicatedJob),
    ("global-job", Mode::GlobalJob),
];

const ORDERS: &[(&str, UpdateOrder)] = &[
    ("start-first", UpdateOrder::StartFirst),
    ("stop-first", UpdateOrder::StopFirst),
];

const FAILURE_ACTIONS: &[(&str, FailureAction)] = &[
    ("pause", FailureAction::Pause),
    ("continue", FailureAction::Continue),
    ("rollback", FailureAction::Rollback),
];

pub(super) fn deploy(view: View<'_>) -> Option<Deploy> {
    let mut fields = view.fields()?;
    let mut deploy = Deploy {
        mode: fields.take("mode", choice(MODES)).unwrap_or_default(),
        replicas: fields.take("replicas", |view| Some((replicas(view)?, view.at()))),
        update: fields
            .take("update_config", |view| {
                rollout(view, FailureAction::Rollback)
            })
            .unwrap_or_default(),
        rollback: fields.take("rollback_config", |view| {
            rollout(view, FailureAction::Pause)
        }),
        restart: fields.take_or_default("restart_policy", restart_policy),
        ..Deploy::default()
    };
    fields.take("resources", |view| resources(view, &mut deploy));
    fields.take("placement", |view| placement(view, &mut deploy));
    fields.ignore("endpoint_mode", "every service has its replicas' addresses");
    fields.close();
    Some(deploy)
}

fn resources(view: View<'_>, deploy: &mut Deploy) -> Option<()> {
    let mut fields = view.fields()?;
    deploy.limits = fields.take_or_default("limits", |view| {
        let mut fields = view.fields()?;
        let limits = Amounts {
            cpu_millis: fields.take("cpus", thousandths),
            memory_bytes: fields.take("memory", bytes),
            pids: fields.take("pids", integer(-1, i64::MAX)),
        };
        fields.close();
        Some(limits)
    });
    deploy.reservations = fields.take_or_default("reservations", |view| {
        let mut fields = view.fields()?;
        let reservations = Amounts {
            cpu_millis: fields.take("cpus", thousandths),
            memory_bytes: fields.take("memory", bytes),
            pids: None,
        };
        deploy.devices = fields.take_or_default("devices", list(parts::gpu));
        fields.close();
        Some(reservations)
    });
    fields.close();
    Some(())
}

/// `update_config` and `rollback_config`, which differ in their default failure action.
fn rollout(view: View<'_>, on_failure: FailureAction) -> Option<UpdateConfig> {
    let defaults = UpdateConfig::default();
    let mut fields = view.fields()?;
    let config = UpdateConfig {
        // Zero means all at once, as in Swarm.
        parallelism: match fields.take("parallelism", count) {
            Some(0) => u32::MAX,
            parallelism => parallelism.unwrap_or(defaults.parallelism),
        },
        delay: fields.take("delay", duration).unwrap_or(defaults.delay),
        monitor: fields.take("monitor", duration).unwrap_or(defaults.monitor),
        order: fields.take("order", choice(ORDERS)),
        failure_action: fields
            .take("failure_action", choice(FAILURE_ACTIONS))
            .unwrap_or(on_failure),
        max_failure_ratio_millis: fields.take_or_default("max_failure_ratio", ratio),
    };
    fields.close();
    Some(config)
}

fn ratio(view: View<'_>) -> Option<u32> {
    let millis = u32::try_from(thousandths(view)?).ok();
    millis
        .filter(|millis| *millis <= 1000)
        .or_else(|| view.expected("a number from 0 to 1"))
}

fn restart_policy(view: View<'_>) -> Option<RestartPolicy> {
    let defaults = RestartPolicy::default();
    let mut fields = view.fields()?;
    let policy = RestartPolicy {
        max_attempts: fields
            .take("max_attempts", count)
            .unwrap_or(defaults.max_attempts),
        delay: fields.take("delay", duration).unwrap_or(defaults.delay),
    };
    fields.ignore(
        "condition",
        "services always restart, jobs until they succeed",
    );
    fields.ignore("window", "a replica that ran for 10 s starts counting anew");
    fields.close();
    Some(policy)
}

fn placement(view: View<'_>, deploy: &mut Deploy) -> Option<()> {
    let mut fields = view.fields()?;
    deploy.constraints = fields.take_or_default("constraints", list(constraint));
    deploy.max_replicas_per_node = fields
        .take("max_replicas_per_node", count)
        .filter(|most| *most > 0);
    fields.close();
    Some(())
}

/// `node.hostname == db-1` and the like.
fn constraint(view: View<'_>) -> Option<Constraint> {
    let text = string(view)?;
    let split = |operator| text.split_once(operator).map(|(l, r)| (l.trim(), r.trim()));
    let (equal, parts) = match split("!=") {
        Some(parts) => (false, Some(parts)),
        None => (true, split("==")),
    };
    let parts = parts.filter(|(_, value)| !value.is_empty());
    let Some((attribute, value)) = parts else {
        return view.invalid(format!("constraint {text:?} must compare with == or !="));
    };
    let attribute = match attribute.strip_prefix("node.labels.") {
        Some(label) if !label.is_empty() => Attribute::Label(label.to_owned()),
        _ if attribute == "node.hostname" => Attribute::Hostname,
        _ if attribute == "node.platform.arch" => Attribute::Arch,
        _ => {
            return view.invalid(format!(
                "constraint {text:?} looks at {attribute:?}; known are node.hostname, \
                 node.labels.<key> and node.platform.arch"
            ));
        }
    };
    let value = match attribute {
        Attribute::Arch => parts::architecture(value),
        _ => value.to_owned(),
    };
    Some(Constraint {
        attribute,
        equal,
        value,
    })
}

/// How a rollback rolls when nothing is said: as an update does, but it never rolls back again.
pub(crate) fn default_rollback() -> UpdateConfig {
    UpdateConfig {
        failure_action: FailureAction::Pause,
        delay: Duration::ZERO,
        ..UpdateConfig::default()
    }
}
