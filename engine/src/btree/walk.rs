//! Visits every page of a tree.

use super::node::{Node, Value};
use super::overflow;
use super::root::Root;
use crate::pages::{PageNumber, birth_of};

/// A page on the way.
#[derive(Clone, Copy)]
pub(crate) struct Visit {
    pub(crate) number: PageNumber,
    pub(crate) birth: u64,
}

/// Calls `visit` for each page, parents first; `visit` says whether to go on below it.
pub(crate) fn walk(root: Root<'_>, visit: &mut impl FnMut(Visit) -> bool) {
    walk_node(root, root.page, root.node(), visit);
}

fn walk_node<'a>(
    root: Root<'a>,
    number: PageNumber,
    node: Node<'a>,
    visit: &mut impl FnMut(Visit) -> bool,
) {
    let birth = |number| birth_of(root.pages.page(number));
    if !visit(Visit { number, birth: birth(number) }) {
        return;
    }
    if node.is_leaf() {
        for index in 0..node.count() {
            let cell = node.cell(index);
            if cell.large {
                let value = Value { bytes: cell.value, large: true };
                overflow::walk(root, number, value, &mut |page, _| {
                    visit(Visit { number: page, birth: birth(page) })
                });
            }
        }
        return;
    }
    for child in 0..=node.count() {
        let below = node.child(child);
        let node_below = root.child(number, below);
        assert!(node_below.level() < node.level(), "page {below} is not below page {number}");
        walk_node(root, below, node_below, visit);
    }
}
