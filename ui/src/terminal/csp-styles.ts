/* Lets xterm.js draw under `style-src 'self'`.
 *
 * Its DOM renderer and viewport write rules into <style> elements, and true colours by
 * setAttribute('style', …): a strict content security policy refuses both. While a terminal is open,
 * document.createElement gives it stand-ins: rules go to a constructed style sheet, colours through the
 * CSSOM, which the policy allows. (Its `documentOverride` option can't do it: xterm.js 6.0 uses the global
 * document in two of these places.) */

/* Stands in for a <style> element: its text becomes an adopted style sheet. A <template>, because even an
 * empty <style> is reported as a violation. */
function adoptedStyle(owner: Document): HTMLElement {
  const element = owner.createElement('template')
  const sheet = new CSSStyleSheet()
  owner.adoptedStyleSheets = [...owner.adoptedStyleSheets, sheet]
  Object.defineProperty(element, 'textContent', {
    get: () => '',
    set: (rules: string) => {
      sheet.replaceSync(rules)
    },
  })
  element.remove = () => {
    owner.adoptedStyleSheets = owner.adoptedStyleSheets.filter((adopted) => adopted !== sheet)
    Element.prototype.remove.call(element)
  }
  return element
}

function setAttributeByCssom(this: HTMLElement, name: string, value: string): void {
  if (name === 'style') this.style.cssText = value
  else Element.prototype.setAttribute.call(this, name, value)
}

let users = 0

/* Begins to give stand-ins; call what it returns when the terminal is disposed of. */
export function allowStyles(owner: Document): () => void {
  users += 1
  if (users === 1) {
    const create = Document.prototype.createElement.bind(owner)
    const createElement = (tag: string, options?: ElementCreationOptions): HTMLElement => {
      if (tag === 'style') return adoptedStyle(owner)
      const element = create(tag, options)
      if (tag === 'span') element.setAttribute = setAttributeByCssom
      return element
    }
    Object.defineProperty(owner, 'createElement', { value: createElement, configurable: true })
  }
  return () => {
    users -= 1
    if (users === 0) Reflect.deleteProperty(owner, 'createElement')
  }
}
