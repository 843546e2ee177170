//! Bars as SVG, which browsers and forges show.

use std::fmt::Write as _;

/// Bars, each with its figure.
pub fn bars(title: &str, bars: &[(&str, f64)]) -> String {
    let (width, label, row) = (640.0, 110.0, 26.0);
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = row * bars.len() as f64 + 48.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"8\" y=\"20\" font-weight=\"bold\">{title}</text>\n"
    );
    for (at, (name, value)) in bars.iter().enumerate() {
        let y = 34.0 + row * at as f64;
        let length = (value.max(0.0) / most * (width - label - 90.0)).max(1.0);
        let _ = writeln!(
            text,
            "<text x=\"8\" y=\"{:.0}\">{name}</text>\
             <rect x=\"{label}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"18\" fill=\"{}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            y + 14.0,
            colour(name),
            label + length + 6.0,
            y + 14.0,
            spell(*value)
        );
    }
    text + "</svg>\n"
}

fn colour(name: &str) -> &'static str {
    match name {
        "valetkey" => "#1b6ca8",
        "floor" | "direct" => "#9db4c0",
        _ => "#c9ada7",
    }
}

/// A figure with as many digits as it deserves.
pub fn spell(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
