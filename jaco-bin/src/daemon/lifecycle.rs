//! The life of a daemon: start, become a member again, stop, leave (spec 04).

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use jaco_core::error::Report;
use jaco_core::ports::ControlPlane;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::config::{self, Config};
use super::drive::Member;
use super::plane::Plane;
use super::{identity, wiring};

/// The daemon of JACO.
#[derive(Debug, Parser)]
#[command(name = "jacod", version)]
pub struct Args {
    /// Configuration file; a missing default file means all defaults
    #[arg(long, env = "JACO_CONFIG")]
    config: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
}

/// How `main` ends.
pub enum Failure {
    /// The configuration breaks its schema.
    Config(Report),
    /// The daemon could not run.
    Run(anyhow::Error),
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When the configuration is wrong, or something that it needs cannot be had.
pub fn run(args: &Args) -> Result<(), Failure> {
    let environment = wiring::environment();
    let config = config::load(args.config.as_deref(), &environment).map_err(Failure::Config)?;
    if args.check_config {
        println!("configuration is valid");
        return Ok(());
    }
    start_logging(&config.log_level);
    wiring::harden();
    wiring::use_small_pages();
    wiring::take_kept_sockets();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(error.into()))?;
    runtime
        .block_on(serve(Arc::new(config)))
        .map_err(Failure::Run)
}

fn start_logging(level: &str) {
    let filter = EnvFilter::new(format!(
        "{level},openraft=off,bollard=warn,hyper=warn,h2=warn"
    ));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    let logging = logging.with_writer(std::io::stderr);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        logging.init();
    } else {
        logging.json().flatten_event(true).init();
    }
}

/// What requests under way get when the daemon is to stop; a service manager waits 90 s.
const GRACE: Duration = Duration::from_secs(20);

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    identity::prepare(&config).with_context(|| format!("prepare {}", config.data_dir.display()))?;
    let plane = Plane::new(Arc::clone(&config));
    if identity::exists(&config) {
        let state_key = identity::load_state_key(&config)
            .with_context(|| format!("read {}", config.state_key.display()))?
            .with_context(|| format!("the state key {} is missing", config.state_key.display()))?;
        let identity = identity::load(&config, &state_key).context("read this node's identity")?;
        let opened = wiring::open(&config, &identity, &state_key).await?;
        plane.activate(identity, opened).await?;
        tracing::info!(subsystem = "cluster", "this node is a member");
    } else {
        tracing::info!(
            subsystem = "cluster",
            "this node is not part of a cluster yet"
        );
    }
    wiring::serve_local(&config, Arc::clone(&plane) as Arc<dyn ControlPlane>).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(subsystem = "cluster", "stopping; containers go on");
    if let Some(member) = plane.member() {
        member.ingress.leave(GRACE).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), member.consensus.shutdown()).await;
    }
    let _ = std::fs::remove_file(&config.unix_socket);
    Ok(())
}

/// Watches for this node's removal from the cluster; then stops its containers, sets its
/// membership aside and starts the daemon anew, uninitialized.
pub(super) async fn leave_when_removed(member: Arc<Member>) {
    let mut was_member = false;
    loop {
        let state = member.consensus.snapshot();
        let is_member = state.nodes.contains_key(&member.name);
        if was_member && !is_member {
            break;
        }
        was_member |= is_member;
        member.consensus.applied_after(state.index).await;
    }
    tracing::info!(
        subsystem = "cluster",
        "this node was removed from its cluster; leaving"
    );
    // The others drop it from the group once it has this entry; give them the answer first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for container in member
        .runtime
        .observe(&member.cluster)
        .await
        .unwrap_or_default()
    {
        let _ = member.runtime.remove(&container.id).await;
    }
    for bridge in member
        .bridges
        .observe(&member.cluster)
        .await
        .unwrap_or_default()
    {
        let _ = member.bridges.remove(&bridge.engine_name).await;
    }
    if let Err(error) = member.host.ensure_passages(&[]).await {
        tracing::warn!(subsystem = "network", %error, "take the rules out of the engine's chains");
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), member.consensus.shutdown()).await;
    let suffix = format!("removed-{}", member.clock.now().0);
    if let Err(error) = identity::set_aside(&member.config, &suffix) {
        tracing::error!(subsystem = "cluster", %error, "set the membership aside");
    }
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .exec(),
        Err(error) => error,
    };
    tracing::error!(subsystem = "cluster", %error, "start anew");
    std::process::exit(1);
}
