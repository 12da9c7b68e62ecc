/* Sets the theme before the first paint; src/stores/preferences.ts keeps the same key. */
;(function () {
  var stored = null
  try {
    stored = localStorage.getItem('mooring.theme')
  } catch {
    /* storage may be closed to us: follow the system */
  }
  var dark =
    stored === 'dark' ||
    (stored !== 'light' && window.matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.classList.toggle('dark', dark)
})()
