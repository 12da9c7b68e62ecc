/* Routes; all pages but the list of nodes are loaded when they are first visited. */
import {
  createRouter,
  createWebHistory,
  type RouteRecordRaw,
  type RouteRecordSingleView,
} from 'vue-router'
import { Problem } from './api/problems'
import type { Role } from './api/types'
import { i18n } from './i18n'
import { useSession } from './stores/session'

declare module 'vue-router' {
  interface RouteMeta {
    /* Shown without the frame. */
    bare?: boolean
    /* The key of the page's title in the catalogue. */
    title?: string
    role?: Role
  }
}

const page = (
  name: string,
  path: string,
  component: RouteRecordSingleView['component'],
  role?: Role,
): RouteRecordSingleView => ({ name, path, component, meta: { title: `nav.${name}`, role } })

const routes: RouteRecordRaw[] = [
  {
    name: 'sign-in',
    path: '/sign-in',
    component: () => import('./pages/SignInPage.vue'),
    meta: { bare: true, title: 'nav.sign-in' },
  },
  { path: '/', redirect: '/nodes' },
  page('nodes', '/nodes', () => import('./pages/NodesPage.vue')),
  {
    path: '/nodes/:node',
    component: () => import('./pages/NodePage.vue'),
    props: true,
    children: [
      { name: 'node', path: '', component: () => import('./node/NodeOverview.vue') },
      {
        name: 'node-terminal',
        path: 'terminal',
        component: () => import('./node/NodeTerminal.vue'),
        meta: { role: 'operator' },
      },
      {
        name: 'node-packages',
        path: 'packages',
        component: () => import('./node/NodePackages.vue'),
      },
      { name: 'node-events', path: 'events', component: () => import('./node/NodeEvents.vue') },
    ],
  },
  page('groups', '/groups', () => import('./pages/GroupsPage.vue')),
  page('run', '/run', () => import('./pages/RunPage.vue'), 'operator'),
  page('tasks', '/tasks', () => import('./pages/TasksPage.vue')),
  { ...page('task', '/tasks/:id', () => import('./pages/TaskPage.vue')), props: true },
  page('sessions', '/sessions', () => import('./pages/SessionsPage.vue')),
  {
    path: '/forwards',
    component: () => import('./pages/ForwardsPage.vue'),
    meta: { title: 'nav.forwards' },
    children: [
      { name: 'forwards', path: '', component: () => import('./forwards/OpenForwards.vue') },
      { name: 'links', path: 'links', component: () => import('./forwards/LinkList.vue') },
      {
        name: 'published',
        path: 'published',
        component: () => import('./forwards/PublishedList.vue'),
      },
    ],
  },
  page('packages', '/packages', () => import('./pages/PackagesPage.vue')),
  { ...page('package', '/packages/:name', () => import('./pages/PackagePage.vue')), props: true },
  page('deploy', '/deploy', () => import('./pages/DeployPage.vue'), 'deployer'),
  page('deployments', '/deployments', () => import('./pages/DeploymentsPage.vue')),
  {
    ...page('deployment', '/deployments/:id', () => import('./pages/DeploymentPage.vue')),
    props: true,
  },
  page('users', '/users', () => import('./pages/UsersPage.vue'), 'admin'),
  page('api-tokens', '/api-tokens', () => import('./pages/ApiTokensPage.vue')),
  page('join-tokens', '/join-tokens', () => import('./pages/JoinTokensPage.vue'), 'admin'),
  page('audit', '/audit', () => import('./pages/AuditPage.vue'), 'admin'),
  page('missing', '/:path(.*)*', () => import('./pages/MissingPage.vue')),
]

export const router = createRouter({
  history: createWebHistory(),
  routes,
  scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
})

router.beforeEach(async (to) => {
  if (to.name === 'sign-in') return true
  const session = useSession()
  if (session.user === null) {
    try {
      await session.load()
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'not_signed_in') session.accept(null)
      return { name: 'sign-in', query: to.fullPath === '/nodes' ? {} : { return: to.fullPath } }
    }
  }
  if (to.meta.role !== undefined && !session.can(to.meta.role)) return { name: 'nodes' }
  return true
})

router.afterEach((to) => {
  const { t, te } = i18n.global
  const name = typeof to.params.node === 'string' ? to.params.node : ''
  const title = name || (to.meta.title && te(to.meta.title) ? t(to.meta.title) : '')
  document.title = title ? `${title} · Mooring` : 'Mooring'
})
