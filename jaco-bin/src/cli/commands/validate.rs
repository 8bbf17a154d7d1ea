//! `validate`: everything that can be said about the files without a cluster.

use jaco_core::manifest::output::ValidateOutput;
use jaco_core::manifest::{KeyClass, redacted};

use crate::cli::args::Validate;
use crate::cli::printer::{Printer, table, upper};
use crate::cli::{Context, Failure, diagnostics, files};

pub(in crate::cli) fn run(context: &Context, args: &Validate) -> Result<(), Failure> {
    let manifests = files::read(&args.jaco, args.compose.as_deref())?;
    let resolved = manifests.resolve(&args.profiles, args.strict);
    let printer = context.printer;
    if let (true, Some(bundle)) = (args.print, &resolved.bundle) {
        return print_document(printer, &redacted(bundle));
    }
    let report = resolved.report.clone();
    let output = ValidateOutput::from(resolved);
    if !report.is_empty() {
        eprintln!(
            "{}",
            diagnostics::render(&report, &manifests, printer.color())
        );
    }
    if !(args.print && printer.is_table()) {
        printer.document(&output, render)?;
    }
    if output.valid {
        Ok(())
    } else {
        Err(Failure::Manifests(report))
    }
}

/// The resolved document; YAML unless JSON was asked for.
fn print_document(printer: Printer, document: &serde_json::Value) -> Result<(), Failure> {
    let yaml = serde_saphyr::to_string(document).map_err(jaco_core::error::Error::internal)?;
    printer.document(document, |_| yaml)
}

fn render(output: &ValidateOutput) -> String {
    let rows = output.keys.iter().map(|key| {
        let note = key.note.clone().unwrap_or_default();
        vec![key.path.clone(), upper(&key.class), note]
    });
    let keys = table(&["KEY", "CLASS", "NOTE"], rows);
    let ignored = output
        .keys
        .iter()
        .filter(|key| key.class == KeyClass::Ignored)
        .count();
    let verdict = if output.valid { "valid" } else { "not valid" };
    format!(
        "{keys}\n{}{verdict}: {} keys, {ignored} ignored\n",
        host_access(output),
        output.keys.len()
    )
}

/// What the services ask of their hosts, and so of the token that applies them.
fn host_access(output: &ValidateOutput) -> String {
    let rows = output.host_access.iter().flat_map(|asked| {
        asked.demands.iter().map(|demand| {
            let right = format!("the right {}", demand.class.as_str());
            let key = format!("{}: {}", demand.key, demand.value);
            vec![asked.service.clone(), upper(&demand.class), key, right]
        })
    });
    let rows: Vec<_> = rows.collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&["SERVICE", "REACHES", "BY", "NEEDS"], rows) + "\n",
    }
}
