//! Who waits for whom, drawn with letters: whoever waits for nobody at the left, and under each the
//! ones who wait for it.
//!
//! ```text
//! ann
//! ├─ bob  waits for file:src/a.rs
//! │  └─ cy  waits for file:src/a.rs, behind bob
//! └─ dan  waits for gpu:0
//! ```
//!
//! No recursion: a queue can be long.

use super::{
    style::{Ink, Style},
    words,
};
use lockkeeper::{DeadlockReport, EdgeKind, Participant, SessionId, WaitEdge, WaitGraph};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// So deep a branch goes before it is taken up again at the left.
const DEPTH_MAX: usize = 12;

/// One who waits for another, and over what: all edges between the two.
#[derive(Debug)]
struct Wait<'a> {
    from: SessionId,
    edges: Vec<&'a WaitEdge>,
}

/// The whole picture.
pub(crate) fn drawn(graph: &WaitGraph, style: Style) -> String {
    if graph.edges.is_empty() {
        return "nobody waits".to_owned();
    }
    let mut drawing = Drawing::of(graph, style);
    let waiting: BTreeSet<SessionId> = graph.edges.iter().map(|edge| edge.from).collect();
    let (rings, roots): (Vec<SessionId>, Vec<SessionId>) =
        drawing.in_order().into_iter().partition(|session| waiting.contains(session));
    for root in roots {
        drawing.tree(root, "");
    }
    // Whoever is still missing waits, in the end, for itself.
    for session in rings {
        if !drawing.seen.contains(&session) {
            drawing.tree(session, "  (a ring)");
        }
    }
    drawing.text.trim_end().to_owned()
}

struct Drawing<'a> {
    names: BTreeMap<SessionId, String>,
    waits: BTreeMap<SessionId, Vec<Wait<'a>>>,
    on_cycle: BTreeSet<SessionId>,
    victim: Option<SessionId>,
    /// Whose waiters are drawn already.
    seen: BTreeSet<SessionId>,
    style: Style,
    text: String,
}

/// Someone whose waiters are being drawn.
struct Open {
    session: SessionId,
    next: usize,
    prefix: String,
}

impl<'a> Drawing<'a> {
    fn of(graph: &'a WaitGraph, style: Style) -> Drawing<'a> {
        let names = names(graph);
        let mut waits: BTreeMap<SessionId, Vec<Wait<'a>>> = BTreeMap::new();
        for edge in &graph.edges {
            let of_one = waits.entry(edge.to).or_default();
            match of_one.iter_mut().find(|wait| wait.from == edge.from) {
                Some(wait) => wait.edges.push(edge),
                None => of_one.push(Wait { from: edge.from, edges: vec![edge] }),
            }
        }
        for of_one in waits.values_mut() {
            of_one.sort_by_key(|wait| (names.get(&wait.from).cloned(), wait.from));
        }
        Drawing {
            names,
            waits,
            on_cycle: graph.cycle.iter().copied().collect(),
            victim: graph.victim,
            seen: BTreeSet::new(),
            style,
            text: String::new(),
        }
    }

    fn in_order(&self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = self.names.keys().copied().collect();
        sessions.sort_by_key(|session| (self.names.get(session).cloned(), *session));
        sessions
    }

    fn name(&self, session: SessionId) -> String {
        let name = self.names.get(&session).cloned().unwrap_or_else(|| session.to_string());
        let mark = match self.victim == Some(session) {
            true => " ✗ gives way",
            false if self.on_cycle.contains(&session) => " ↺",
            false => "",
        };
        let ink = if mark.is_empty() { Ink::Title } else { Ink::Bad };
        self.style.paint(ink, &format!("{name}{mark}"))
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Draws one and all who wait for it.
    fn tree(&mut self, root: SessionId, remark: &str) {
        let mut later = vec![(root, remark.to_owned())];
        while let Some((root, remark)) = later.pop() {
            let title = format!("{}{remark}", self.name(root));
            self.line(&title);
            self.seen.insert(root);
            let mut open = vec![Open { session: root, next: 0, prefix: String::new() }];
            while let Some(top) = open.last_mut() {
                let waits = self.waits.get(&top.session).map_or(&[][..], Vec::as_slice);
                let Some(wait) = waits.get(top.next) else {
                    open.pop();
                    continue;
                };
                top.next += 1;
                let is_last = top.next == waits.len();
                let (branch, below) =
                    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let (start, below) =
                    (format!("{}{branch}", top.prefix), format!("{}{below}", top.prefix));
                let (from, to) = (wait.from, top.session);
                let why = self.why(wait, to);
                let leads_on = self.waits.contains_key(&from);
                let is_ring = open.iter().any(|above| above.session == from);
                let remark = match (is_ring, leads_on && self.seen.contains(&from)) {
                    (true, _) => "  ↺ and so the ring is closed",
                    (false, true) => "  (see above)",
                    (false, false) if leads_on && open.len() >= DEPTH_MAX => "  (goes on below)",
                    _ => "",
                };
                let line = format!("{start}{}  {why}{remark}", self.name(from));
                self.line(&line);
                if remark.is_empty() {
                    self.seen.insert(from);
                    open.push(Open { session: from, next: 0, prefix: below });
                } else if remark.contains("below") {
                    self.seen.insert(from);
                    later.push((from, "  (from above)".to_owned()));
                }
            }
        }
    }

    fn why(&self, wait: &Wait<'_>, to: SessionId) -> String {
        let next = self.names.get(&to).cloned().unwrap_or_else(|| to.to_string());
        let parts: Vec<String> = wait
            .edges
            .iter()
            .map(|edge| match (&edge.resource, edge.kind) {
                (Some(resource), EdgeKind::Hard) => resource.to_string(),
                (Some(resource), EdgeKind::Soft) => format!("{resource}, behind {next}"),
                (Some(resource), _) => format!("slots of {resource}"),
                (None, _) => format!("{next} itself"),
            })
            .collect();
        words::plain(&format!("waits for {}", parts.join(" and for ")))
    }
}

/// A name for each session: that of its agent, with a number where an agent has several.
fn names(graph: &WaitGraph) -> BTreeMap<SessionId, String> {
    let mut of_agent: BTreeMap<&str, Vec<SessionId>> = BTreeMap::new();
    for node in &graph.nodes {
        of_agent.entry(&node.agent).or_default().push(node.session);
    }
    let mut names = BTreeMap::new();
    for (agent, mut sessions) in of_agent {
        let agent = words::plain(agent);
        sessions.sort_unstable();
        for (at, session) in sessions.iter().enumerate() {
            let name = match sessions.len() {
                1 => agent.clone(),
                _ => format!("{agent}#{}", at + 1),
            };
            names.insert(*session, name);
        }
    }
    names
}

/// A deadlock, from the one whose request closed it on, each waiting for the next.
pub(crate) fn ring(report: &DeadlockReport) -> Vec<String> {
    let count = report.participants.len();
    let each = report.participants.iter().enumerate();
    each.map(|(at, one)| {
        let next = &report.participants[(at + 1) % count].rank.agent;
        let mark = match at {
            _ if count == 1 => "─",
            0 => "╭▸",
            _ if at + 1 == count => "╰─",
            _ => "│ ",
        };
        let lost = if one.rank.session == report.victim { "  ✗ gives way" } else { "" };
        words::plain(&format!("{mark} {} {}{lost}", one.rank.agent, waits(one, next)))
    })
    .collect()
}

fn waits(one: &Participant, next: &str) -> String {
    match (&one.resource, one.edge) {
        (Some(resource), EdgeKind::Soft) => format!("waits for {resource} behind {next}"),
        (Some(resource), _) => format!("waits for {resource} held by {next}"),
        (None, _) => format!("waits for {next} itself"),
    }
}

/// For programs.
pub(crate) fn json(graph: &WaitGraph) -> Value {
    let nodes: Vec<Value> = graph
        .nodes
        .iter()
        .map(|node| json!({ "session": node.session.get(), "agent": &*node.agent }))
        .collect();
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .map(|edge| {
            json!({
                "from": edge.from.get(),
                "to": edge.to.get(),
                "kind": edge.kind.to_string(),
                "resource": edge.resource.as_ref().map(|resource| resource.as_str()),
            })
        })
        .collect();
    let cycle: Vec<u64> = graph.cycle.iter().map(|session| session.get()).collect();
    json!({ "nodes": nodes, "edges": edges, "cycle": cycle })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockkeeper::{Epoch, Resource, WaitNode};

    fn session(n: u32) -> SessionId {
        SessionId::new(Epoch::new(1), n)
    }

    fn graph(agents: &[&str], edges: &[(u32, u32, EdgeKind, &str)]) -> WaitGraph {
        let nodes = agents
            .iter()
            .zip(1..)
            .map(|(&agent, n)| WaitNode { session: session(n), agent: agent.into() });
        let edges = edges.iter().map(|&(from, to, kind, key)| WaitEdge {
            from: session(from),
            to: session(to),
            kind,
            resource: (!key.is_empty()).then(|| Resource::file(key)),
        });
        WaitGraph { nodes: nodes.collect(), edges: edges.collect(), cycle: vec![], victim: None }
    }

    #[test]
    fn who_waits_stands_under_the_one_it_waits_for() {
        use EdgeKind::{Declared, Hard, Soft};
        let graph = graph(
            &["ann", "bob", "cy", "dan", "ann"],
            &[
                (2, 1, Hard, "a"),
                (3, 1, Hard, "a"),
                (3, 2, Soft, "a"),
                (3, 4, Hard, "b"),
                (5, 4, Declared, ""),
            ],
        );
        assert_eq!(
            drawn(&graph, Style::PLAIN),
            "\
ann#1
├─ bob  waits for file:a
│  └─ cy  waits for file:a, behind bob
└─ cy  waits for file:a
dan
├─ ann#2  waits for dan itself
└─ cy  waits for file:b"
        );
    }

    #[test]
    fn a_ring_is_drawn_and_marked() {
        let mut ring = graph(
            &["ann", "bob", "cy"],
            &[
                (1, 2, EdgeKind::Hard, "b"),
                (2, 1, EdgeKind::Hard, "a"),
                (3, 1, EdgeKind::Hard, "a"),
            ],
        );
        ring.cycle = vec![session(1), session(2)];
        ring.victim = Some(session(2));
        assert_eq!(
            drawn(&ring, Style::PLAIN),
            "\
ann ↺  (a ring)
├─ bob ✗ gives way  waits for file:a
│  └─ ann ↺  waits for file:b  ↺ and so the ring is closed
└─ cy  waits for file:a"
        );
    }

    #[test]
    fn a_long_queue_is_drawn_in_pieces() {
        let agents: Vec<String> = (0..100_000).map(|n| format!("agent-{n:06}")).collect();
        let agents: Vec<&str> = agents.iter().map(String::as_str).collect();
        let edges: Vec<(u32, u32, EdgeKind, &str)> =
            (1..100_000).map(|n| (n + 1, n, EdgeKind::Hard, "a")).collect();
        let text = drawn(&graph(&agents, &edges), Style::PLAIN);
        for agent in [agents[0], agents[50_000], agents[99_999]] {
            assert!(text.contains(agent));
        }
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(100), "{longest:?}");
    }

    #[test]
    fn without_waits_it_says_so() {
        assert_eq!(drawn(&WaitGraph::default(), Style::PLAIN), "nobody waits");
    }
}
