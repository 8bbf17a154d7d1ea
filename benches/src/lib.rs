//! Shared parts of the peer benches: medians, and rows in the form that scripts read.

pub mod clusters;
pub mod front;
pub mod parity;
pub mod peer;
pub mod web;

/// The median of some figures; zero of none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

/// One row: our figure beside those of peers from the same run.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    ours: f64,
    unit: String,
    /// The name, its figure, and the ratio round by round if there are rounds.
    peers: Vec<(String, f64, Option<f64>)>,
    worst: Option<f64>,
}

impl Row {
    /// A row without peers.
    pub fn new(name: &str, ours: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            ours,
            unit: unit.to_owned(),
            peers: Vec::new(),
            worst: None,
        }
    }

    /// Adds a peer's figure.
    #[must_use]
    pub fn beside(mut self, peer: &str, figure: f64) -> Self {
        self.peers.push((peer.to_owned(), figure, None));
        self
    }

    /// Adds a peer's figure, and the middle of the ratios of the single rounds: a machine that is
    /// slow for some of them moves it less than the ratio of the medians.
    #[must_use]
    pub fn beside_by_round(mut self, peer: &str, figure: f64, by_round: f64) -> Self {
        self.peers.push((peer.to_owned(), figure, Some(by_round)));
        self
    }

    /// Adds the worst of our own figures.
    #[must_use]
    pub fn worst(mut self, figure: f64) -> Self {
        self.worst = Some(figure);
        self
    }

    /// Prints one line per peer: `bench <row> ours=… peer=…:… ratio=… unit=…`, then `worst=…`
    /// and `by_round=…`, which is a ratio, as far as they are known.
    pub fn print(&self) {
        let known = |name: &str, figure: Option<f64>| {
            figure.map_or_else(String::new, |figure| format!(" {name}={figure:.3}"))
        };
        let worst = known("worst", self.worst);
        for (peer, figure, by_round) in &self.peers {
            let by_round = known("by_round", *by_round);
            let ratio = if *figure == 0.0 {
                0.0
            } else {
                self.ours / figure
            };
            println!(
                "bench {} ours={:.3} peer={peer}:{figure:.3} ratio={ratio:.3} \
                 unit={}{worst}{by_round}",
                self.name, self.ours, self.unit
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
