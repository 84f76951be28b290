// What of a page lies beside the window, and cannot be reached by scrolling within itself.
() => {
  const width = document.documentElement.clientWidth;
  const scrolls = (element) =>
    /auto|scroll/.test(getComputedStyle(element).overflowX) &&
    element.scrollWidth > element.clientWidth;
  const within = (element, stop) => {
    for (let each = element; each && each !== stop; each = each.parentElement)
      if (scrolls(each)) return true;
    return false;
  };
  const content = document.querySelector(".md-content");
  const outside = new Set();
  for (const element of content.querySelectorAll("*")) {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const box = element.getBoundingClientRect();
    if (box.width * box.height === 0 || (box.right <= width + 1 && box.left >= -1)) continue;
    if (element.ownerSVGElement || within(element, content)) continue;
    const text = element.textContent.trim().slice(0, 40);
    outside.add(`${element.tagName.toLowerCase()}.${element.className}: ${text}`);
  }
  return { width, page: document.documentElement.scrollWidth, outside: [...outside] };
}
