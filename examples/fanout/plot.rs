//! The times as a picture: how long it takes, for which share of the changes. With each step to the right the share that
//! takes longer is a tenth of what it was, so that the slowest ones show.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::measure::Load;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const STYLE: &str = "font-family=\"sans-serif\" font-size=\"13\" fill=\"#333\"";

pub(crate) fn svg(load: &Load, times: &Histogram<u64>) -> String {
    let steps = f64::from(times.len().max(10).ilog10().max(1)); // as far as there are times to tell it
    let most = nice(times.max().max(1) as f64 / 1_000.0);
    let x = |step: f64| MARGIN + step / steps * (WIDTH - 2.0 * MARGIN);
    let y = |ms: f64| HEIGHT - MARGIN - ms / most * (HEIGHT - 2.0 * MARGIN);
    let at = |step: f64| times.value_at_quantile(1.0 - 0.1_f64.powf(step)) as f64 / 1_000.0;

    let mut svg =
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" {STYLE}>\n");
    svg.push_str("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n");
    let title = format!(
        "from a change to each of {} watchers, {} changes a second at most, payloads of {} bytes",
        load.watchers, load.rate, load.payload
    );
    text(&mut svg, WIDTH / 2.0, MARGIN / 2.0, "middle", &title);
    for line in 0..=5 {
        let ms = most * f64::from(line) / 5.0;
        rule(&mut svg, [MARGIN, y(ms), WIDTH - MARGIN, y(ms)]);
        text(&mut svg, MARGIN - 8.0, y(ms) + 4.0, "end", &format!("{ms} ms"));
    }
    for step in (0..=steps as u32).map(f64::from) {
        rule(&mut svg, [x(step), y(0.0), x(step), y(most)]);
        let share = 100.0 - 100.0 * 0.1_f64.powf(step);
        let digits = (step as usize).saturating_sub(2);
        text(&mut svg, x(step), HEIGHT - MARGIN + 20.0, "middle", &format!("{share:.digits$} %"));
    }
    let curve = (0..=200).map(|point| steps * f64::from(point) / 200.0);
    let points: Vec<_> = curve.map(|step| format!("{:.1},{:.1}", x(step), y(at(step)))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>",
        points.join(" ")
    );
    svg + "</svg>\n"
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn rule(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ =
        writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>");
}

/// The next number that reads well in fifths: 1, 2 or 5 times a power of ten.
fn nice(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= number).unwrap_or(10.0);
    factor * power
}
