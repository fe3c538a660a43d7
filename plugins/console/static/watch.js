/* The page Watch: a small chart for each check. */
document.querySelectorAll(".chart[data-points]").forEach((place) => {
  const points = JSON.parse(place.dataset.points);
  const threshold = place.dataset.threshold === "" ? null : Number(place.dataset.threshold);
  window.drawLines(place, [{ values: points.map((point) => point.value) }], threshold);
});
