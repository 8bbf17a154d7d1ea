//! The bed for a person: makes it, shows it, opens shells in it, removes it.

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jaco_testkit::bed::{Bed, Host, State, images};
use jaco_testkit::soak::rows;
use serde_json::{Value, json};

/// Several real hosts on this machine: a namespace, a Docker Engine and a jacod each.
#[derive(Parser)]
#[command(name = "jaco-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
    /// Which lab.
    #[arg(long, global = true, default_value = "lab")]
    name: String,
}

#[derive(Subcommand)]
enum Action {
    /// Makes a lab and leaves it running.
    Up(Up),
    /// Starts the lab's certificate authority and prints where it is.
    Acme,
    /// Shows the hosts.
    Status {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Opens a shell on a host.
    Shell {
        /// Which host, from 1.
        host: usize,
    },
    /// Runs a command on a host and ends with its status.
    Run {
        /// Which host, from 1.
        host: usize,
        /// The command, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Breaks or mends something.
    #[command(subcommand)]
    Fault(Fault),
    /// Removes the lab.
    Down,
    /// Repeats a fault on a bed of its own and counts what went wrong
    #[command(subcommand)]
    Soak(Soak),
}

#[derive(Subcommand)]
enum Soak {
    /// SIGKILLs random daemons under a stream of applies.
    Kills {
        /// How many kills.
        #[arg(long, default_value_t = 200)]
        rounds: usize,
        /// Repeats a run.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// SIGKILLs the leader in the middle of each step of a rollout.
    LeaderKills {
        /// How many rollouts are disturbed so.
        #[arg(long, default_value_t = 30)]
        rounds: usize,
    },
    /// Cuts a host off from the others and mends the cut.
    Partitions {
        /// How many cuts.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Has replicas come and go, and looks for what stays behind.
    Churn {
        /// How often the size of the service changes.
        #[arg(long, default_value_t = 200)]
        rounds: usize,
    },
    /// Loads one node until a replica is moved, which takes ten minutes or more.
    Pressure,
}

#[derive(Args)]
struct Up {
    /// How many hosts.
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Starts a jacod on every host.
    #[arg(long)]
    daemons: bool,
    /// Makes one cluster of all hosts; starts the daemons too.
    #[arg(long)]
    cluster: bool,
    /// Where jaco and jacod are; default: beside this program, then the target folder.
    #[arg(long, env = "JACO_BIN_DIR")]
    binaries: Option<PathBuf>,
    /// An argument for every engine, such as --live-restore.
    #[arg(long, allow_hyphen_values = true)]
    engine_flag: Vec<String>,
}

#[derive(Subcommand)]
enum Fault {
    /// Cuts hosts off from all others, both ways, in place of earlier cuts.
    Isolate {
        /// Which hosts, from 1.
        #[arg(required = true)]
        hosts: Vec<usize>,
    },
    /// Ends all cuts.
    Heal,
    /// Kills a host's jacod.
    KillDaemon {
        /// Which host, from 1.
        host: usize,
    },
    /// Starts a host's jacod.
    StartDaemon {
        /// Which host, from 1.
        host: usize,
    },
    /// Kills a host's engine.
    KillEngine {
        /// Which host, from 1.
        host: usize,
    },
    /// Starts a host's engine.
    StartEngine {
        /// Which host, from 1.
        host: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jaco-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever read the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        kind.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    });
    kinds
        .into_iter()
        .any(|kind| kind == io::ErrorKind::BrokenPipe)
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let name = arguments.name.as_str();
    match &arguments.command {
        Action::Up(up) => bring_up(name, up)?,
        Action::Status { output } => show(&Bed::attach(name)?, *output)?,
        Action::Shell { host } => {
            let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
            let prompt = format!("node-{host} # ");
            return execute(
                &Bed::attach(name)?,
                *host,
                Command::new(shell).env("PS1", prompt),
            );
        }
        Action::Run { host, command } => {
            let (program, rest) = command.split_first().context("no command")?;
            return execute(&Bed::attach(name)?, *host, Command::new(program).args(rest));
        }
        Action::Fault(fault) => apply(&Bed::attach(name)?, fault)?,
        Action::Acme => start_acme(&Bed::attach(name)?)?,
        Action::Down => Bed::destroy(name)?,
        Action::Soak(Soak::Kills { rounds, seed }) => rows::kills(*rounds, *seed)?,
        Action::Soak(Soak::LeaderKills { rounds }) => rows::leader_kills(*rounds)?,
        Action::Soak(Soak::Partitions { rounds }) => rows::partitions(*rounds)?,
        Action::Soak(Soak::Churn { rounds }) => rows::churn(*rounds)?,
        Action::Soak(Soak::Pressure) => rows::pressure()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn bring_up(name: &str, up: &Up) -> Result<()> {
    if State::load(name).is_ok_and(|state| state.kept) {
        bail!("lab {name:?} is up; `jaco-lab down --name {name}` removes it");
    }
    let start = Instant::now();
    let mut builder = Bed::builder().name(name).hosts(up.hosts);
    if let Some(folder) = &up.binaries {
        let folder = folder.canonicalize();
        builder = builder.binaries(&folder.context("cannot find the folder of the binaries")?);
    }
    for flag in &up.engine_flag {
        builder = builder.engine_flag(flag);
    }
    let bed = builder.build()?;
    if up.cluster {
        bed.form_cluster()?;
    } else if up.daemons {
        bed.start_daemons()?;
    }
    show(&bed, Format::Table)?;
    let names: Vec<&str> = images::names().collect();
    eprintln!(
        "images: {}/{{{}}}",
        bed.registry().address(),
        names.join(",")
    );
    eprintln!(
        "lab {name:?} is up after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    bed.keep()
}

fn start_acme(bed: &Bed) -> Result<()> {
    let acme = bed.acme();
    acme.start(&[])?;
    println!("acme_ca: {}", acme.directory_url());
    println!("acme_ca_root: {}", acme.root_file().display());
    println!("resolver: {}", acme.dns_address());
    Ok(())
}

fn show(bed: &Bed, format: Format) -> Result<()> {
    let hosts: Vec<Value> = bed.hosts().iter().map(describe).collect();
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            let registry = bed.registry();
            let document = json!({
                "name": bed.name(),
                "registry": registry.address(),
                "registry_running": registry.answers(),
                "hosts": hosts,
            });
            serde_json::to_writer_pretty(&mut out, &document)?;
            writeln!(out)?;
        }
        Format::Table => {
            let columns = [
                "name",
                "namespace",
                "address",
                "engine",
                "daemon",
                "directory",
            ];
            let mut rows = vec![columns.map(|column| column.to_uppercase())];
            rows.extend(
                hosts
                    .iter()
                    .map(|host| columns.map(|column| cell(&host[column]))),
            );
            write!(out, "{}", align(&rows))?;
        }
    }
    Ok(())
}

fn describe(host: &Host) -> Value {
    let engine = if host.engine().answers() {
        host.engine().pid()
    } else {
        None
    };
    json!({
        "name": host.name(),
        "namespace": host.namespace().name(),
        "address": host.address(),
        "engine": engine,
        "daemon": host.daemon().pid(),
        "directory": host.directory(),
        "docker_socket": host.engine().socket(),
        "jaco_socket": host.daemon().socket(),
        "daemon_log": host.daemon().log(),
    })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "down".to_owned(),
        Value::String(text) => text.clone(),
        other => format!("pid {other}"),
    }
}

/// Pads every column to its widest cell.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Runs the command on a host with this program's terminal and passes its status on.
fn execute(bed: &Bed, host: usize, command: &mut Command) -> Result<ExitCode> {
    let host = checked(bed, host)?;
    let program = command.get_program().to_owned();
    command.envs(host.environment());
    let status = host.enter(|| command.status())?;
    let status = status.with_context(|| format!("cannot run {program:?}"))?;
    Ok(exit_code(status))
}

/// As a shell reports it: 128 and the signal's number for a command that was killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn apply(bed: &Bed, fault: &Fault) -> Result<()> {
    match fault {
        Fault::Isolate { hosts } => {
            for host in hosts {
                checked(bed, *host)?;
            }
            let all = 1..=bed.hosts().len();
            let others: Vec<usize> = all.filter(|host| !hosts.contains(host)).collect();
            bed.partition(hosts, &others)
        }
        Fault::Heal => bed.heal(),
        Fault::KillDaemon { host } => checked(bed, *host)?.kill_daemon(),
        Fault::StartDaemon { host } => checked(bed, *host)?.start_daemon(),
        Fault::KillEngine { host } => checked(bed, *host)?.kill_engine(),
        Fault::StartEngine { host } => checked(bed, *host)?.start_engine(),
    }?;
    if io::stderr().is_terminal() {
        eprintln!("done");
    }
    Ok(())
}

fn checked(bed: &Bed, host: usize) -> Result<&Host> {
    match bed.hosts().get(host.wrapping_sub(1)) {
        Some(host) => Ok(host),
        None => bail!("the lab has hosts 1 to {}, not {host}", bed.hosts().len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(align(&rows), "A     B\nlong  x\n");
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
