//! Mistakes in manifests, each with its source line underlined.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use jaco_core::error::{Report, Violation};

use super::files::Manifests;

/// Every violation, for people.
pub(super) fn render(report: &Report, manifests: &Manifests, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text = String::new();
    for violation in &report.violations {
        text.push_str(&one(violation, manifests, &renderer));
        text.push_str("\n\n");
    }
    let count = report.violations.len();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    text.push_str(&format!("{count} {noun}"));
    text
}

fn one(violation: &Violation, manifests: &Manifests, renderer: &Renderer) -> String {
    let title = format!("{}: {}", violation.code, violation.message);
    let group = Level::ERROR.primary_title(&title);
    let hint = violation.code.hint();
    let source = manifests.text(&violation.file);
    let (Some(span), Some(source)) = (violation.span, &source) else {
        let at = format!("in {} at {}", violation.file, violation.path);
        let group = group
            .element(Level::NOTE.message(at))
            .element(Level::HELP.message(hint));
        return renderer.render(&[group]);
    };
    let start = usize::try_from(span.start).unwrap_or(0).min(source.len());
    let end = usize::try_from(span.end)
        .unwrap_or(0)
        .clamp(start, source.len());
    // A value of several lines is marked at its first one.
    let line_end = source[start..]
        .find('\n')
        .map_or(source.len(), |at| start + at);
    let end = end.min(line_end.max(start));
    let snippet = Snippet::source(source.as_str())
        .path(&violation.file)
        .annotation(AnnotationKind::Primary.span(start..end));
    let group: Group<'_> = group.element(snippet).element(Level::HELP.message(hint));
    renderer.render(&[group])
}
