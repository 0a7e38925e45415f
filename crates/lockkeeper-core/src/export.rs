//! Pictures of the wait-for graph, for people: Graphviz and Mermaid, cycle and victim marked.

use crate::{DeadlockReport, EdgeKind, SessionId, WaitEdge, WaitGraph, WaitNode};
use std::fmt::Write;

impl DeadlockReport {
    /// The picture of this deadlock alone.
    pub fn graph(&self) -> WaitGraph {
        WaitGraph {
            nodes: self
                .participants
                .iter()
                .map(|one| WaitNode { session: one.rank.session, agent: one.rank.agent.clone() })
                .collect(),
            edges: self
                .participants
                .iter()
                .map(|one| WaitEdge {
                    from: one.rank.session,
                    to: one.waits_for,
                    kind: one.edge,
                    resource: one.resource.clone(),
                })
                .collect(),
            cycle: self.participants.iter().map(|one| one.rank.session).collect(),
            victim: Some(self.victim),
        }
    }
}

impl WaitGraph {
    /// For Graphviz: `dot -Tsvg`.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph waits {\n  rankdir=LR;\n  node [shape=box];\n");
        for node in &self.nodes {
            let style = match (self.victim == Some(node.session), self.is_on_cycle(node.session)) {
                (true, _) => ", style=filled, fillcolor=\"#f4a6a6\", penwidth=2",
                (_, true) => ", penwidth=2",
                _ => "",
            };
            let id = node.session;
            let label = quote(&self.label(node));
            let _ = writeln!(dot, "  s{id} [label=\"{label}\"{style}];");
        }
        for edge in &self.edges {
            let style = match (edge.kind, self.is_on_cycle(edge.from) && self.is_next(edge)) {
                (EdgeKind::Hard, false) => "",
                (EdgeKind::Hard, true) => ", penwidth=2, color=red",
                (_, false) => ", style=dashed",
                (_, true) => ", style=dashed, penwidth=2, color=red",
            };
            let label = quote(&why(edge));
            let _ = writeln!(dot, "  s{} -> s{} [label=\"{label}\"{style}];", edge.from, edge.to);
        }
        dot.push_str("}\n");
        dot
    }

    /// For Mermaid: renders in Markdown on most forges.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for node in &self.nodes {
            let label = escape(&self.label(node));
            let _ = writeln!(text, "  s{}[\"{label}\"]", node.session);
        }
        for edge in &self.edges {
            let arrow = if edge.kind == EdgeKind::Hard { "-->" } else { "-.->" };
            let label = escape(&why(edge));
            let _ = writeln!(text, "  s{} {arrow}|\"{label}\"| s{}", edge.from, edge.to);
        }
        for session in self.cycle.iter().filter(|&&session| self.victim != Some(session)) {
            let _ = writeln!(text, "  style s{session} stroke-width:3px");
        }
        if let Some(victim) = self.victim {
            let _ = writeln!(text, "  style s{victim} fill:#f4a6a6,stroke-width:3px");
        }
        text
    }

    fn label(&self, node: &WaitNode) -> String {
        match self.victim == Some(node.session) {
            true => format!("{} (victim)", node.agent),
            false => node.agent.to_string(),
        }
    }

    fn is_on_cycle(&self, session: SessionId) -> bool {
        self.cycle.contains(&session)
    }

    /// Whether the edge leads from one member of the cycle to the next.
    fn is_next(&self, edge: &WaitEdge) -> bool {
        let next = self.cycle.iter().cycle().skip(1);
        self.cycle.iter().zip(next).any(|(&from, &to)| (edge.from, edge.to) == (from, to))
    }
}

fn why(edge: &WaitEdge) -> String {
    match &edge.resource {
        Some(resource) if edge.kind == EdgeKind::Hard => resource.to_string(),
        Some(resource) => format!("{resource} ({})", edge.kind),
        None => edge.kind.to_string(),
    }
}

/// For a quoted string of Graphviz. Names come from outside and may hold anything.
fn quote(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            '"' => vec!['\\', '"'],
            '\\' => vec!['\\', '\\'],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect()
}

/// For a quoted label of Mermaid, which knows HTML's entities.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("&quot;"),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '#' => escaped.push_str("&#35;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Resource};

    fn picture() -> WaitGraph {
        let session = |n| SessionId::new(Epoch::new(1), n);
        let node = |n, agent: &str| WaitNode { session: session(n), agent: agent.into() };
        let edge = |from, to, kind| WaitEdge {
            from: session(from),
            to: session(to),
            kind,
            resource: Some(Resource::file("a")),
        };
        WaitGraph {
            nodes: vec![node(1, "ann"), node(2, "bob \"b\""), node(3, "cy")],
            edges: vec![
                edge(1, 2, EdgeKind::Hard),
                edge(2, 1, EdgeKind::Soft),
                edge(3, 1, EdgeKind::Hard),
            ],
            cycle: vec![session(1), session(2)],
            victim: Some(session(2)),
        }
    }

    #[test]
    fn dot_marks_cycle_and_victim_and_escapes_names() {
        let dot = picture().to_dot();
        assert!(dot.contains(r#"[label="bob \"b\" (victim)", style=filled"#), "{dot}");
        assert_eq!(dot.matches("color=red").count(), 2, "{dot}");
        assert_eq!(dot.matches("style=dashed").count(), 1, "{dot}");
        assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    }

    #[test]
    fn mermaid_marks_cycle_and_victim_and_escapes_names() {
        let text = picture().to_mermaid();
        assert!(text.contains("bob &quot;b&quot; (victim)"), "{text}");
        assert!(text.contains("-.->|\"file:a (soft)\"|"), "{text}");
        assert_eq!(text.matches("fill:#f4a6a6").count(), 1, "{text}");
        assert_eq!(text.matches("stroke-width").count(), 2, "{text}");
    }
}
