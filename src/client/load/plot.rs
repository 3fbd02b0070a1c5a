//! Latency by percentile as an SVG picture, one line for each run.
//!
//! The horizontal axis gives each further nine as much room as the one before it (50%, 90%, 99%,
//! 99.9%), since that is where answers are late; the vertical one is logarithmic.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
/// Room for the names of the axes.
const MARGIN: f64 = 70.0;
/// Nines on the horizontal axis: up to 99.999%.
const NINES: f64 = 5.0;
/// Points of a line.
const POINTS: u32 = 200;
const COLOURS: [&str; 4] = ["#0b6bcb", "#c2410c", "#15803d", "#7e22ce"];

/// Draws the latencies of these runs, named, in microseconds. Empty ones have no line.
pub fn svg(title: &str, runs: &[(&str, &Histogram<u64>)]) -> String {
    let slowest = runs.iter().map(|(_, histogram)| histogram.max()).max().unwrap_or(1);
    let fastest = runs.iter().map(|(_, histogram)| histogram.min()).min().unwrap_or(1);
    let scale = Scale::new(fastest, slowest);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    scale.grid(&mut svg);
    for (number, (name, histogram)) in runs.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let y = 44 + 18 * number;
        line(&mut svg, &format!("{MARGIN}"), y, colour, name);
        if !histogram.is_empty() {
            let points = scale.points(histogram);
            writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
            )
            .expect("strings grow");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, x: &str, y: usize, colour: &str, name: &str) {
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", escaped(name))
        .expect("strings grow");
}

/// Powers of ten, in microseconds, at the ends of the vertical axis.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn new(fastest: u64, slowest: u64) -> Self {
        let power = |micros: u64| (micros.max(1) as f64).log10();
        let low = power(fastest).floor() as i32;
        Self { low, high: (power(slowest).ceil() as i32).max(low + 1) }
    }

    /// From the share of answers that were not slower.
    fn x(share: f64) -> f64 {
        let nines = -(1.0 - share).max(10_f64.powf(-NINES)).log10();
        MARGIN + nines / NINES * (WIDTH - 2.0 * MARGIN)
    }

    fn y(&self, micros: f64) -> f64 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let share = (micros.max(1.0).log10() - low) / (high - low);
        HEIGHT - MARGIN - share * (HEIGHT - 2.6 * MARGIN)
    }

    fn grid(&self, svg: &mut String) {
        let (left, right) = (Self::x(0.0), Self::x(1.0));
        for power in self.low..=self.high {
            let micros = 10_f64.powi(power);
            let y = self.y(micros);
            let name = micros / 1000.0;
            write!(
                svg,
                "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name} ms</text>\n",
                left - 6.0,
                y + 4.0
            )
            .expect("strings grow");
        }
        let (top, bottom) = (self.y(10_f64.powi(self.high)), self.y(10_f64.powi(self.low)));
        for (share, name) in [
            (0.0, "0%"),
            (0.5, "50%"),
            (0.9, "90%"),
            (0.99, "99%"),
            (0.999, "99.9%"),
            (0.9999, "99.99%"),
        ] {
            let x = Self::x(share);
            write!(
                svg,
                "<path d=\"M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\n",
                bottom + 18.0
            )
            .expect("strings grow");
        }
    }

    /// Up to where the histogram has answers to tell of.
    fn points(&self, histogram: &Histogram<u64>) -> String {
        let last = (histogram.len() as f64).log10().min(NINES);
        let mut points = String::new();
        for point in 0..=POINTS {
            let share = 1.0 - 10_f64.powf(-last * f64::from(point) / f64::from(POINTS));
            let micros = histogram.value_at_quantile(share).min(histogram.max());
            let (x, y) = (Self::x(share), self.y(micros as f64));
            write!(points, "{x:.1},{y:.1} ").expect("strings grow");
        }
        points.truncate(points.trim_end().len());
        points
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        for value in values {
            histogram.record(*value).unwrap();
        }
        histogram
    }

    #[test]
    fn each_run_has_a_line_that_never_falls() {
        let slow = histogram(&(1..=1000).map(|n| n * 50).collect::<Vec<_>>());
        let none = histogram(&[]);
        let svg = svg("encrypt & more", &[("ours", &slow), ("<other>", &none)]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("encrypt &amp; more") && svg.contains("&lt;other&gt;"));
        let points: Vec<&str> = svg.split("points=\"").skip(1).collect();
        assert_eq!(points.len(), 1, "nothing was measured of the other");
        let heights: Vec<f64> = points[0]
            .split('"')
            .next()
            .unwrap()
            .split(' ')
            .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 201);
        // Down is up in SVG.
        assert!(heights.windows(2).all(|two| two[1] <= two[0]));
        assert!(heights.iter().all(|y| (0.0..=HEIGHT).contains(y)));
    }

    #[test]
    fn the_axes_hold_what_was_measured() {
        let scale = Scale::new(120, 25_000);
        assert_eq!((scale.low, scale.high), (2, 5));
        assert!(Scale::x(0.5) < Scale::x(0.9) && Scale::x(0.9) < Scale::x(1.0));
        assert!((Scale::x(1.0) - (WIDTH - MARGIN)).abs() < 1e-9);
        assert!(scale.y(100.0) > scale.y(100_000.0));
        let one = Scale::new(1000, 1000);
        assert!(one.high > one.low, "a single value has an axis, too");
    }
}
