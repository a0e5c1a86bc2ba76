/** Addresses of pages. The terminal comes in a chunk of its own: it is larger than everything else together. */
import { createRouter, createWebHistory, type RouteRecordRaw } from "vue-router";

declare module "vue-router" {
  interface RouteMeta {
    /** Works without a login. */
    isPublic?: boolean;
    /** The page takes the whole room; the rail gets narrow and the page does not scroll. */
    isFull?: boolean;
    /** Key of the title. */
    title: string;
  }
}

const routes: RouteRecordRaw[] = [
  {
    path: "/login",
    name: "login",
    component: () => import("./pages/LoginPage.vue"),
    meta: { isPublic: true, title: "login.title" },
  },
  {
    path: "/",
    name: "overview",
    component: () => import("./pages/OverviewPage.vue"),
    meta: { title: "nav.overview" },
  },
  {
    path: "/inbox",
    name: "inbox",
    component: () => import("./pages/InboxPage.vue"),
    meta: { title: "nav.inbox" },
  },
  {
    path: "/locks",
    name: "locks",
    component: () => import("./pages/LocksPage.vue"),
    meta: { title: "nav.locks" },
  },
  {
    path: "/machines",
    name: "machines",
    component: () => import("./pages/MachinesPage.vue"),
    meta: { title: "nav.machines" },
  },
  {
    path: "/machines/:key",
    name: "machine",
    component: () => import("./pages/MachinePage.vue"),
    meta: { title: "nav.machines" },
  },
  {
    path: "/pair",
    name: "pair",
    component: () => import("./pages/PairPage.vue"),
    meta: { title: "pair.title" },
  },
  {
    path: "/sessions",
    name: "sessions",
    component: () => import("./pages/SessionsPage.vue"),
    meta: { title: "nav.sessions" },
  },
  {
    path: "/sessions/new",
    name: "new-session",
    component: () => import("./pages/NewSessionPage.vue"),
    meta: { title: "new.title" },
  },
  {
    path: "/sessions/:key",
    name: "session",
    component: () => import("./pages/SessionPage.vue"),
    meta: { title: "nav.sessions", isFull: true },
  },
  {
    path: "/sessions/:key/replay",
    name: "replay",
    component: () => import("./pages/ReplayPage.vue"),
    meta: { title: "replay.title", isFull: true },
  },
  {
    path: "/settings",
    name: "settings",
    component: () => import("./pages/SettingsPage.vue"),
    meta: { title: "nav.settings" },
  },
  {
    path: "/:rest(.*)*",
    name: "not-found",
    component: () => import("./pages/NotFoundPage.vue"),
    meta: { title: "notFound.title" },
  },
];

export const router = createRouter({
  history: createWebHistory(),
  routes,
  scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
});
