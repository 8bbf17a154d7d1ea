//! The command line: arguments in, one call or a few, data on standard output (spec 09).

mod args;
mod commands;
mod diagnostics;
mod exit;
mod files;
mod printer;
mod systemd;
mod wiring;

pub use args::Cli;
pub use exit::Failure;

use args::{Command, Global};
use printer::Printer;

/// What every command works with.
struct Context {
    global: Global,
    printer: Printer,
}

/// Runs one command and tells why when it fails. Returns the exit code.
pub fn run(cli: Cli) -> u8 {
    start_logging(&cli.global);
    let printer = Printer::new(&cli.global);
    let context = Context {
        global: cli.global,
        printer,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(&context, cli.command)),
        Err(error) => Err(jaco_core::error::Error::internal(error).into()),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit_code()
        }
    }
}

fn start_logging(global: &Global) {
    let level = if global.verbose {
        "debug"
    } else {
        global.log_level.as_str()
    };
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    let _ = logging.with_writer(std::io::stderr).try_init();
}

async fn dispatch(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Cluster(command) => commands::cluster::run(context, command).await,
        Command::Node(command) => commands::node::run(context, command).await,
        Command::Apply(args) => commands::apply::run(context, &args).await,
        Command::Validate(args) => commands::validate::run(context, &args),
        Command::Status(args) => commands::status::run(context, &args).await,
        Command::Get(command) => commands::get::run(context, command).await,
        Command::Net(command) => commands::net::run(context, command).await,
        Command::Logs(args) => commands::logs::run(context, &args).await,
        Command::Delete { deployment } => commands::revisions::delete(context, deployment).await,
        Command::Rollback { deployment, to } => {
            commands::revisions::rollback(context, deployment, to).await
        }
        Command::History { deployment } => commands::revisions::history(context, deployment).await,
        Command::Scale { target } => commands::revisions::scale(context, target).await,
        Command::Plan(args) => commands::plan::run(context, &args).await,
        Command::Why { replica } => commands::plan::why(context, replica).await,
        Command::Restart { target } => commands::revisions::restart(context, &target).await,
        Command::Cert(command) => commands::cert::run(context, command).await,
        Command::Token(command) => commands::token::run(context, command).await,
        Command::Audit(args) => commands::audit::run(context, &args).await,
        Command::Explain { code } => commands::about::explain(context, &code),
        Command::Completion { shell } => commands::about::completion(context, shell),
        Command::Version => commands::about::version(context),
    }
}
