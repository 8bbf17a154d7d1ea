//! Parser events → tree: aliases, merge keys, duplicate keys and the bounds on all of it.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::{At, Entry, Mapping, MergeTag, Node, Scalar, Value};
use crate::error::Span;
use crate::manifest::bounds::MAX_EXPANDED;
use crate::manifest::findings::{FileId, Findings};

/// How deep a document may nest, aliases counted where they stand.
const MAX_DEPTH: usize = 64;
/// How many nodes all aliases together may add. A bomb passes it within a few lines; a
/// thousand services that share one block stay far below.
const ALIAS_BUDGET: usize = 250_000;
/// Bytes that each node costs beside its text.
const NODE_BYTES: usize = 64;
/// Mappings up to this size are searched for duplicates by comparing pairs.
const SMALL: usize = 12;

/// Builds the tree of the only document in `text`. `None` after a violation that leaves no
/// usable tree; a tree may come together with violations, such as duplicate keys.
pub(crate) fn parse(text: &str, file: FileId, findings: &Findings) -> Option<Node> {
    if text.len() > MAX_EXPANDED {
        let message = format!(
            "the document has {} bytes; at most {MAX_EXPANDED} are read",
            text.len()
        );
        findings.invalid_file(file, message);
        return None;
    }
    let mut builder = Builder {
        text,
        file,
        findings,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        alias_nodes: 0,
        alias_bytes: 0,
        root: None,
    };
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        simple_key_max_lookahead: 64 * 1024,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.accept(event, &span),
            Err(error) => {
                let at = builder.at(error.marker(), error.marker());
                findings.invalid(at, "", format!("not valid YAML: {}", error.info()));
                None
            }
        };
        step?;
    }
    let start = At {
        file,
        span: Span {
            line: 1,
            column: 1,
            start: 0,
            end: 0,
        },
    };
    Some(builder.root.unwrap_or_else(|| Node::null(start)))
}

/// A collection whose end has not come yet.
struct Open {
    kind: OpenKind,
    at: At,
    merge: MergeTag,
    anchor: usize,
    /// Nodes inside so far, and how deep they go.
    size: usize,
    height: usize,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        key: Option<PendingKey>,
        merges: Vec<Node>,
    },
}

struct PendingKey {
    text: String,
    at: At,
    /// A plain `<<`, whose value is merged in.
    is_merge: bool,
}

/// A finished anchored node.
struct Anchored {
    node: Node,
    size: usize,
    bytes: usize,
    height: usize,
}

struct Builder<'a> {
    text: &'a str,
    file: FileId,
    findings: &'a Findings,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    alias_nodes: usize,
    /// Bytes that aliases have copied.
    alias_bytes: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    /// Takes one event; `None` stops the build.
    fn accept(&mut self, event: Event<'_>, span: &granit_parser::Span) -> Option<()> {
        let at = self.at(&span.start, &span.end);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = self.merge_tag(tag.as_deref(), at);
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let quoted = style != ScalarStyle::Plain || is_text;
                let text = text.into_owned();
                let mut node = Node::new(Value::Scalar(Scalar { text, quoted }), at);
                node.merge = merge;
                self.close(node, anchor, 1, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.start(OpenKind::Sequence(Vec::new()), anchor, tag.as_deref(), at)
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind = OpenKind::Mapping {
                    entries: Vec::new(),
                    key: None,
                    merges: Vec::new(),
                };
                self.start(kind, anchor, tag.as_deref(), at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.finish(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::UnresolvedAlias(name) => {
                let message = format!("alias *{name} has no anchor &{name} before it");
                self.findings.invalid(at, self.path(), message);
                self.close(Node::new(Value::Unknown, at), 0, 1, 1)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                let message = "the file holds more than one YAML document; keep one";
                self.findings.invalid(at, "", message);
                None
            }
            _ => Some(()),
        }
    }

    fn start(&mut self, kind: OpenKind, anchor: usize, tag: Option<&Tag>, at: At) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            return self.too_deep(at);
        }
        let merge = self.merge_tag(tag, at);
        self.open.push(Open {
            kind,
            at,
            merge,
            anchor,
            size: 1,
            height: 1,
        });
        Some(())
    }

    fn finish(&mut self) -> Option<()> {
        let open = self.open.pop()?;
        let value = match open.kind {
            OpenKind::Sequence(items) => Value::Sequence(items),
            OpenKind::Mapping {
                entries, merges, ..
            } => Value::Mapping(self.mapping(entries, &merges)),
        };
        let mut node = Node::new(value, open.at);
        node.merge = open.merge;
        self.close(node, open.anchor, open.size, open.height)
    }

    /// Unique keys, then whatever `<<` brings and the mapping does not say itself.
    fn mapping(&self, entries: Vec<Entry>, merges: &[Node]) -> Mapping {
        let mut entries = self.without_duplicates(entries);
        if !merges.is_empty() {
            let mut said: BTreeSet<String> = entries.iter().map(|e| e.key.clone()).collect();
            for merged in merges {
                self.merge(&mut entries, &mut said, merged, true);
            }
        }
        Mapping { entries }
    }

    fn merge(&self, into: &mut Vec<Entry>, said: &mut BTreeSet<String>, from: &Node, list: bool) {
        match &from.value {
            Value::Mapping(source) => {
                for entry in &source.entries {
                    if said.insert(entry.key.clone()) {
                        into.push(entry.clone());
                    }
                }
            }
            // Earlier mappings of a list win, which is what adding absent keys gives.
            Value::Sequence(items) if list => {
                for item in items {
                    self.merge(into, said, item, false);
                }
            }
            _ => {
                let message = format!("`<<` needs a mapping, found {}", from.kind());
                self.findings.invalid(from.at, self.path_to("<<"), message);
            }
        }
    }

    fn without_duplicates(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        let mut duplicate = vec![false; entries.len()];
        if entries.len() <= SMALL {
            for (index, entry) in entries.iter().enumerate() {
                duplicate[index] = entries[..index].iter().any(|prior| prior.key == entry.key);
            }
        } else {
            let mut seen = BTreeSet::new();
            for (index, entry) in entries.iter().enumerate() {
                duplicate[index] = !seen.insert(entry.key.as_str());
            }
        }
        for (entry, _) in entries
            .iter()
            .zip(&duplicate)
            .filter(|(_, duplicate)| **duplicate)
        {
            let message = format!("key {:?} appears twice in one mapping", entry.key);
            let path = self.path_to(&entry.key);
            self.findings.invalid(entry.key_at, path, message);
        }
        let mut keep = duplicate.into_iter();
        entries.retain(|_| !keep.next().unwrap_or(false));
        entries
    }

    /// A node is whole: remember it if anchored and hand it to what encloses it.
    fn close(&mut self, node: Node, anchor: usize, size: usize, height: usize) -> Option<()> {
        if anchor != 0 {
            let node = node.clone();
            let bytes = node.text_bytes() + size * NODE_BYTES;
            let anchored = Anchored {
                node,
                size,
                bytes,
                height,
            };
            self.anchors.insert(anchor, anchored);
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        parent.size += size;
        parent.height = parent.height.max(height + 1);
        match &mut parent.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping {
                entries,
                key,
                merges,
            } => match key.take() {
                None => *key = Some(pending_key(node, self.findings)),
                Some(pending) if pending.is_merge => merges.push(node),
                Some(pending) => entries.push(Entry {
                    key: pending.text,
                    key_at: pending.at,
                    value: node,
                }),
            },
        }
        Some(())
    }

    fn alias(&mut self, anchor: usize, at: At) -> Option<()> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "an alias stands inside its own anchor";
            self.findings.invalid(at, self.path(), message);
            return None;
        };
        let (node, size, height) = (&anchored.node, anchored.size, anchored.height);
        self.alias_nodes += size;
        self.alias_bytes += anchored.bytes;
        if self.alias_nodes > ALIAS_BUDGET || self.alias_bytes > MAX_EXPANDED {
            let message = "the aliases of the document expand without reasonable bound";
            self.findings.invalid(at, "", message);
            return None;
        }
        if self.open.len() + height > MAX_DEPTH {
            return self.too_deep(at);
        }
        let node = node.clone();
        self.close(node, 0, size, height)
    }

    fn too_deep(&self, at: At) -> Option<()> {
        let message = format!("the document nests deeper than {MAX_DEPTH} levels");
        self.findings.invalid(at, "", message);
        None
    }

    fn merge_tag(&self, tag: Option<&Tag>, at: At) -> MergeTag {
        match tag {
            None => MergeTag::None,
            Some(tag) if tag.is_yaml_core_schema() => MergeTag::None,
            Some(tag) => match (tag.original_handle(), tag.suffix()) {
                ("!", "reset") => MergeTag::Reset,
                ("!", "override") => MergeTag::Override,
                // The non-specific tag `!` says no more than that the scalar is text.
                ("!", "") | ("", "!") => MergeTag::None,
                _ => {
                    let message = format!("unknown tag {}", tag.original());
                    self.findings.invalid(at, self.path(), message);
                    MergeTag::None
                }
            },
        }
    }

    /// The path of the node that is being built.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.kind {
                OpenKind::Sequence(items) => path.push_str(&format!("[{}]", items.len())),
                OpenKind::Mapping { key: None, .. } => {}
                OpenKind::Mapping { key: Some(key), .. } => {
                    path.push_str(if path.is_empty() { "" } else { "." });
                    path.push_str(&key.text);
                }
            }
        }
        path
    }

    fn path_to(&self, key: &str) -> String {
        match self.path() {
            root if root.is_empty() => key.to_owned(),
            parent => format!("{parent}.{key}"),
        }
    }

    fn at(&self, start: &Marker, end: &Marker) -> At {
        let offset = |marker: &Marker| {
            let bytes = marker.byte_offset().unwrap_or(marker.index());
            u32::try_from(bytes.min(self.text.len())).unwrap_or(u32::MAX)
        };
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        At {
            file: self.file,
            span: Span {
                line: number(start.line()),
                column: number(start.col() + 1),
                start: offset(start),
                end: offset(end).max(offset(start)),
            },
        }
    }
}

fn pending_key(node: Node, findings: &Findings) -> PendingKey {
    let at = node.at;
    match node.value {
        Value::Scalar(scalar) => PendingKey {
            is_merge: !scalar.quoted && scalar.text == "<<",
            text: scalar.text,
            at,
        },
        _ => {
            findings.invalid(at, "", "a mapping key must be a scalar");
            PendingKey {
                text: String::new(),
                at,
                is_merge: false,
            }
        }
    }
}
