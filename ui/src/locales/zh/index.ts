import access from './access'
import forwards from './forwards'
import frame from './frame'
import nodes from './nodes'
import ship from './ship'
import work from './work'

export default { ...frame, ...nodes, ...work, ...forwards, ...ship, ...access }
