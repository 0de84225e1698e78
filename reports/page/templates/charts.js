(() => {
  // Replaces each drawn chart by a live one, when it comes into view, and lets its legend switch its parts off and on.

  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();

  // Half of a colour on the ground of a chart: what the drawing has by opacity.
  function faded(name) {
    const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const ground = parts(colour("surface"));
    return `rgb(${parts(colour(name)).map((part, place) => Math.round((part + ground[place]) / 2))})`;
  }

  function painted(trace, off) {
    const own = colour(trace.meta.paint);
    trace.visible = !off.has(trace.meta.key);
    if (trace.type === "heatmap") {
      trace.colorscale = [[0, colour("surface")], [1, faded(trace.meta.paint)]];
      trace.textfont = { color: colour("ink") };
      return trace;
    }
    trace.fillcolor = own;
    if (trace.line) trace.line.color = own;
    if (trace.marker) trace.marker.color = own;
    for (const whisker of [trace.error_x, trace.error_y]) if (whisker) whisker.color = colour("ink");
    return trace;
  }

  function figure(live, off) {
    const { data, layout } = JSON.parse(live.dataset.figure);
    const narrow = live.clientWidth < 520;
    layout.width = live.clientWidth;
    if (layout.yaxis.scaleanchor) layout.height = Math.min(layout.height, layout.width + 20);
    if (narrow) layout.yaxis.ticktext = layout.meta.short;
    for (const axis of [layout.xaxis, layout.yaxis]) Object.assign(axis, { gridcolor: colour("line"), linecolor: colour("line") });
    for (const shape of layout.shapes) shape.line.color = colour("muted");
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: colour("muted"), family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13 };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink") } };
    return { data: data.map((trace) => painted(trace, off)), layout };
  }

  // A large script that takes most of the time of opening the page, so it is unpacked when the first chart is in view.
  let loading;
  async function unpackPlotly() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (at) => at.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  }

  function liven(live) {
    const box = live.closest("figure");
    const drawn = box.querySelector(".chart-drawn");
    const off = new Set();
    // What the pointer says of a label that is cut: the drawn chart has it.
    const whole = [...drawn.querySelectorAll(':scope > g[text-anchor="end"] > text')].map((label) => label.querySelector("title"));

    async function draw() {
      await (loading ??= unpackPlotly());
      const { data, layout } = figure(live, off);
      await Plotly.react(live, data, layout, { displayModeBar: false });
      live.querySelectorAll(".ytick text").forEach((label, place) => {
        if (!whole[place] || label.querySelector("title")) return;
        label.append(whole[place].cloneNode(true));
        label.style.pointerEvents = "all";
      });
    }

    for (const entry of box.querySelectorAll(".legend li[data-key]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.childNodes);
      button.addEventListener("click", () => {
        const shown = off.delete(entry.dataset.key) || !off.add(entry.dataset.key);
        button.setAttribute("aria-pressed", String(shown));
        draw();
      });
      entry.append(button);
    }

    live.hidden = false;
    draw().then(
      () => {
        drawn.style.display = "none";
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
        // Also when a closed panel is opened after the window has changed.
        let width = live.clientWidth;
        new ResizeObserver(() => {
          if (live.clientWidth && live.clientWidth !== width) {
            width = live.clientWidth;
            draw();
          }
        }).observe(live);
      },
      (error) => {
        live.hidden = true;
        console.error("a live chart could not be drawn; the drawn one stays", error);
      },
    );
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        liven(target.querySelector(".chart-live"));
      }
    },
    { rootMargin: "400px" },
  );
  for (const box of document.querySelectorAll("figure.chart")) observer.observe(box);
})();
