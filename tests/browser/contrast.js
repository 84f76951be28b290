// Text that is too close in colour to what is behind it, by the measure of WCAG 2.
async () => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();

  // Whatever way a colour is written, a painted pixel has its four numbers.
  const numbers = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = "rgba(0, 0, 0, 0)";
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, alpha, below) => below.map((value, i) => top[i] * alpha + value * (1 - alpha));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const remembered = (compute) => {
    const found = new Map();
    return (element) => {
      if (!found.has(element)) found.set(element, compute(element));
      return found.get(element);
    };
  };
  const opacity = remembered((element) =>
    element ? opacity(element.parentElement) * Number(getComputedStyle(element).opacity) : 1);

  // What HTML paints behind an element, from the page up to the element itself.
  const background = remembered((element) => {
    if (!element) return [255, 255, 255];
    const colour = numbers(getComputedStyle(element).backgroundColor);
    return over(colour, colour[3] * opacity(element), background(element.parentElement));
  });

  // The pixels of the pictures in drawings, such as those of heat maps.
  const pictures = new Map();
  for (const element of document.querySelectorAll("svg image")) {
    const picture = new Image();
    picture.src = element.href.baseVal;
    await picture.decode();
    const { width, height } = picture;
    const painted = new OffscreenCanvas(width, height).getContext("2d");
    painted.drawImage(picture, 0, 0);
    pictures.set(element, { width, height, data: painted.getImageData(0, 0, width, height).data });
  }
  const pixel = (element, x, y) => {
    const { width, height, data } = pictures.get(element);
    const at = new DOMPoint(x, y).matrixTransform(element.getScreenCTM().inverse());
    const step = (value, length, count) => Math.min(Math.floor((value / length) * count), count - 1);
    const column = step(at.x - element.x.baseVal.value, element.width.baseVal.value, width);
    const row = step(at.y - element.y.baseVal.value, element.height.baseVal.value, height);
    const [r, g, b, a] = data.slice(4 * (row * width + column));
    return [r, g, b, a / 255];
  };

  // Shapes of a drawing that lie behind one of its texts are painted before it.
  const behind = (element, x, y) => {
    const drawing = element.ownerSVGElement;
    const shapes = document.elementsFromPoint(x, y).filter((each) =>
      each.ownerSVGElement === drawing && !each.closest("text, defs") &&
      each.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
    const filtered = getComputedStyle(drawing).filter !== "none";
    return shapes.reverse().reduce((below, each) => {
      const style = getComputedStyle(each);
      if (pictures.has(each)) {
        const colour = pixel(each, x, y);
        return over(colour, colour[3] * opacity(each), below);
      }
      if (style.fill === "none" || style.fill.startsWith("url")) return below;
      const colour = numbers(style.fill);
      return over(colour, colour[3] * Number(style.fillOpacity) * opacity(each), below);
    }, filtered ? [255, 255, 255] : background(drawing));
  };
  // What a filter of the drawing and its blending with the page make of a colour.
  const shown = (rgb, drawing) => {
    const style = getComputedStyle(drawing);
    if (style.filter === "none") return rgb;
    canvas.filter = style.filter;
    canvas.fillStyle = `rgb(${rgb.map(Math.round).join(" ")})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.filter = "none";
    const changed = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    if (style.mixBlendMode !== "screen") return changed;
    const page = background(drawing);
    return changed.map((value, i) => 255 - ((255 - value) * (255 - page[i])) / 255);
  };

  const findings = new Map();
  const judge = (element, colour, below, text, shown = (rgb) => rgb) => {
    const style = getComputedStyle(element);
    const paint = numbers(colour);
    const seen = shown(over(paint, paint[3] * opacity(element), below));
    below = shown(below);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(seen, below);
    if (found >= (large ? 3 : 4.5)) return;
    const rgb = (values) => `rgb(${values.map(Math.round).join(" ")})`;
    const where = `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""}`;
    const what = `${where} ${rgb(seen)} on ${rgb(below)}: ${found.toFixed(2)}`;
    findings.set(what, text.trim().slice(0, 40));
  };

  const visible = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("svg, script, style, noscript")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const { width, height } = range.getBoundingClientRect();
    if (!visible(element) || width * height === 0) continue;
    texts += 1;
    judge(element, getComputedStyle(element).color, background(element), node.data);
  }
  // Matplotlib draws letters as glyphs that are used, in groups that are named text_1 and so on.
  for (const element of document.querySelectorAll("svg text, svg [id^=text_] use")) {
    if (!visible(element.ownerSVGElement)) continue;
    element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    const box = element.getBoundingClientRect();
    texts += 1;
    const below = behind(element, box.x + box.width / 2, box.y + box.height / 2);
    const text = element.textContent || "a glyph";
    const drawing = element.ownerSVGElement;
    judge(element, getComputedStyle(element).fill, below, text, (rgb) => shown(rgb, drawing));
  }
  return { texts, findings: Object.fromEntries(findings) };
}
