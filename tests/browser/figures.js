// Pictures and drawings of a page, and which of them show nothing.
async () => {
  const content = document.querySelector(".md-content");
  const empty = [];
  const pictures = [...content.querySelectorAll("img")];
  for (const picture of pictures) {
    picture.loading = "eager";
    await picture.decode().catch(() => {});
    if (!(picture.naturalWidth > 0)) empty.push(`img ${picture.src}`);
  }
  const drawings = [...content.querySelectorAll("svg")].filter((each) => each.checkVisibility());
  for (const drawing of drawings) {
    const { width, height } = drawing.getBoundingClientRect();
    const shapes = [...drawing.querySelectorAll("path, rect, circle, line, polyline, text, use")];
    const drawn = shapes.filter((each) => {
      const box = each.closest("defs, clipPath") ? null : each.getBoundingClientRect();
      return box && box.width + box.height > 0;
    });
    if (!(width > 0 && height > 0 && drawn.length)) empty.push(drawing.outerHTML.slice(0, 80));
  }
  return { figures: pictures.length + drawings.length, empty };
}
